//! Showing a state that nodes keep, for reading: `mount --at`.
//!
//! It asks nobody for the root: one node that has a state and its blocks is enough. So it is also what is left where those that kept the
//! root are lost, and one elsewhere has everything.

use std::rc::Rc;

use filesystem::Options;
use filesystem::access::open_root;
use filesystem::volume::Volume;

use super::{Subject, Target, To, find, id_of, tell_left_out, unknown, unread};
use crate::client::{Client, Settings};
use crate::errors::Failure;
use crate::{client_directory, replaced};

/// What `subject` was in the state that `text` is the name of, open for reading; `None` where nodes keep none of that name, and it may be
/// something else's.
///
/// # Errors
/// `Failure::Past` if it can't be had; if none has that name, only where the root can't be read either.
///
/// # Suspends
/// While nodes are asked.
pub(crate) fn view(
    subject: &Subject,
    client: &Client,
    settings: &Settings,
    text: &str,
) -> Result<Option<Rc<Volume>>, Failure> {
    let target = Target::open(subject, client, settings)?;
    let (what, store, keys) = (target.what(), target.store.clone(), target.keys.clone());
    let values = store.past(&keys.register).map_err(|error| unknown(&what, &error))?;
    tell_left_out(&values);
    let home = settings.home.as_ref().map(|home| client_directory::first(home.path()));
    let kept = home.map(|home| replaced::of(&home, &keys.register)).transpose()?.unwrap_or_default();
    let (version, payload, header_hash) = match find(&values, &kept, text, &what) {
        Ok(To::Kept(value)) => {
            let record = store.read_past(&keys.register, value);
            let record = record.map_err(|error| unread(&values, value, &error))?;
            (record.version, record.payload, record.header_hash.0)
        }
        Ok(To::Replaced(root)) => (root.version, root.payload.0.clone().into(), root.header_hash.0),
        // A snapshot may be called that, and is found by the root.
        Err(_) if values.newest.is_ok() && target.space.is_none() => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let no_view = |reason: String| Failure::Past {
        reason: format!("the state {} of {what} does not open: {reason}", id_of(&header_hash)),
    };
    let root = open_root(&payload, version, &keys.secret).map_err(|error| no_view(error.to_string()))?;
    let view = Volume::as_of(Rc::new(store), keys, &Options::default(), &root);
    view.map(Some).map_err(|errno| no_view(format!("its tree can't be read ({errno})")))
}
