//! `rollback`: having the drive, or one of its spaces, be what it was. Nothing hangs on whether the newest root opens.
//!
//! In this order: what was deleted of what the old root reaches is taken back, or else nothing is done; the newest root is kept in the
//! home (`replaced`), so that this can be undone; the old tree takes its place, in a swap; and it is looked once more, since somebody
//! may have deleted something meanwhile.
//!
//! **The drive and what was deleted only the owner brings back.** A writer of a space may bring that back where its newest root opens to
//! him and nothing is missing: he could write the same by hand. Who may do what is no part of what comes back.
//!
//! A directory that is no volume of its own nodes keep nothing of: it comes from a snapshot (`restore`), in one commit as well.
//!
//! Not here: which states there are (`past`), and how a root is replaced (`filesystem::access::sharing`).

use std::rc::Rc;
use std::time::UNIX_EPOCH;

use dht::block::deletion::Speaker;
use dht::block::mutable::{Genesis, Signed};
use dht::past::Values;
use dht::{BlockStore, Record};
use filesystem::access::{Charter, GIVEN_UP, Root, open_root, sharing};
use filesystem::volume::{Options, Roots, Volume};
use overlay::Revocations;
use reactor::cell::RefCell;
use reactor::crypto::Identity;

use crate::cli::{Restore, Rollback};
use crate::client::{self, Client, Settings};
use crate::client_directory;
use crate::errors::Failure;
use crate::gc;
use crate::groups;
use crate::home::Home;
use crate::keeping;
use crate::output::say;
use crate::past::{self, Subject, Target, To, civil, id_of, unknown};
use crate::process;
use crate::progress;
use crate::replaced;
use crate::restore;
use crate::seen::Seen;
use crate::share;
use crate::sharing::{Sharer, TakenOff};
use crate::space_lists::{self, Published, Seal, Turn};
use crate::volume::refuse_unless_owner;

/// Runs `rollback`.
///
/// # Errors
/// `Failure::Past` or `Failure::Garbage` if all stays as it is; `Failure::Sharing` if it may; of a directory those of `restore`.
pub(crate) fn rollback(options: &Rollback) -> Result<(), Failure> {
    let settings = client::settings(&options.client)?;
    let home = settings.home.clone().ok_or_else(|| Failure::Past {
        reason: "what a rollback takes the place of is kept in a home: say which with --home".into(),
    })?;
    let subject = Subject::of(options.directory.as_deref(), &options.client)?;
    if let (Subject::Within, Some(path)) = (&subject, &options.directory) {
        return restore::restore(&Restore {
            path: path.clone(),
            at: Some(options.to.clone()),
            to: None,
            client: options.client.clone(),
        });
    }
    process::run(|| {
        let client = Client::connect(&settings)?;
        let result = GoingBack::new(&home, &settings, &client, &subject).and_then(|going| going.go(options));
        client.leave();
        result
    })
}

/// A rollback that is under way.
struct GoingBack<'a> {
    home: &'a Home,
    settings: &'a Settings,
    client: &'a Client,
    target: Target,
    /// As people say it.
    what: String,
    is_owner: bool,
}

/// What became of those who may do something, with the tree.
enum Others {
    /// Those whom nobody let into the drive.
    OfDrive(TakenOff),
    /// What the space says now of who may do what; and whom its newest root opened to.
    OfSpace(Published, Seal),
    /// The same as before: a writer of the space may say nothing else.
    AsTheyWere,
}

impl<'a> GoingBack<'a> {
    /// # Errors
    /// `Failure::NotOwner`, or why the register can't be opened.
    fn new(
        home: &'a Home,
        settings: &'a Settings,
        client: &'a Client,
        subject: &Subject,
    ) -> Result<GoingBack<'a>, Failure> {
        let target = Target::open(subject, client, settings)?;
        let owner = refuse_unless_owner(&settings.network, client.user());
        let is_owner = owner.is_ok();
        if target.space.is_none() {
            owner?;
        }
        let what = target.what();
        Ok(GoingBack { home, settings, client, target, what, is_owner })
    }

    fn go(&self, options: &Rollback) -> Result<(), Failure> {
        let argument = self.target.argument();
        let (what, store, keys) = (&self.what, &self.target.store, &self.target.keys);
        // Kept until the new root is there: from then on it is what this home has seen.
        let directory = client_directory::first(self.home.path());
        let _seen = Seen::recall(store, keys.register, &directory, options.accept_rollback, None)?;
        let values = store.past(&keys.register).map_err(|error| unknown(what, &error))?;
        past::tell_left_out(&values);
        let kept = replaced::of(&directory, &keys.register)?;
        let newest = values.newest.as_ref().map_err(|error| unknown(what, error))?;
        let newest = newest.as_ref().ok_or_else(|| unknown(what, &"its root is missing"))?;
        let to = past::find(&values, &kept, &options.to, what)?;
        self.refuse_readers()?;
        let (version, payload, header_hash, when) = match to {
            To::Kept(value) => {
                let when = past::when(value);
                if value.header_hash == newest.header_hash {
                    let reason = match newest.payload == GIVEN_UP {
                        true => format!(
                            "{what} was removed {when}, and is so now: `past{argument}` lists what it was before; once `rollback{argument} --to ID` \
                             has it be that, `share{argument} --put-back` puts its name back"
                        ),
                        false => format!("{what} is what it was {when}, and nothing is to be done"),
                    };
                    return Err(Failure::Past { reason });
                }
                let record = store.read_past(&keys.register, value);
                let record = record.map_err(|error| past::unread(&values, value, &error))?;
                (record.version, record.payload, record.header_hash.0, when)
            }
            To::Replaced(root) => {
                let when = format!("until {} (UTC)", civil(root.replaced_seconds));
                (root.version, root.payload.0.clone().into(), root.header_hash.0, when)
            }
        };
        let root = open_root(&payload, version, &keys.secret).map_err(|error| Failure::Past {
            reason: format!("the state {} of {what} does not open: {error}", id_of(&header_hash)),
        })?;
        let bar = progress::spinner("looking for what it needs");
        // Mounts may put newer ones until the swap: it is the last that is kept which was replaced.
        let replaced = RefCell::new(None::<Record>);
        let keep = |newest: &Record| {
            if newest.payload == GIVEN_UP {
                return Ok(());
            }
            let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
            let before = replaced.replace(Some(newest.clone()));
            replaced::keep(&directory, &keys.register, newest, before.as_ref(), now.as_secs())
        };
        let result = self.put_back(&root, &values, &keep, &bar);
        bar.finish_and_clear();
        let (others, missing) = result?;
        say(format_args!("{what} is what it was {when}, version {version} by then"));
        if let To::Kept(value) = to
            && let Some(between) = past::not_kept(&values, value)
        {
            say(between);
        }
        let of = if argument.is_empty() { String::new() } else { format!(" --of{argument}") };
        say(format_args!("its snapshots are those of then as well: `snapshots{of}` lists them"));
        self.tell(&others, replaced.into_inner().as_ref());
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Failure::Past {
                reason: format!(
                    "but {missing} of it were deleted meanwhile: run `gc`, which takes them back, and see that nobody else does"
                ),
            }),
        }
    }

    fn tell(&self, others: &Others, replaced: Option<&Record>) {
        let argument = self.target.argument();
        if let Some(replaced) = replaced {
            let id = id_of(&replaced.header_hash.0);
            say(format_args!(
                "what it was until now is {id}: `rollback{argument} --to {id}` undoes this, as long as nodes keep what only that needs"
            ));
        }
        match others {
            Others::OfDrive(TakenOff::Intruders(intruders)) => crate::remove::tell_of(intruders.iter()),
            Others::OfDrive(TakenOff::Unknown) | Others::AsTheyWere => {}
            Others::OfSpace(published, seal) => {
                let path = self.target.space.as_ref().map_or("", |(_, path)| path);
                share::tell(path, &published.list, &published.changed);
                if published.is_without_readers {
                    say(format_args!(
                        "whom the owner took off last can't be told, for what the nodes keep of the space does not say; so nobody is in it who \
                         only reads, or by a group: `share{argument} --read WHO` lets each of them in again"
                    ));
                }
                if *seal == Seal::GivenUp {
                    say(format_args!(
                        "it had been removed, or given up: nobody but you is on its list, and `share{argument} --put-back` puts it into the \
                         drive if it is not there"
                    ));
                }
                if *seal != Seal::Ours {
                    say("mounts that have seen it not open to them show it once they are mounted anew");
                }
            }
        }
    }

    /// Whoever may not write to a space is told so before anything is done; the newest root was read.
    fn refuse_readers(&self) -> Result<(), Failure> {
        if self.is_owner {
            return Ok(());
        }
        let user = self.client.user();
        let writers = self.target.store.writers(&self.target.keys.register);
        let writers = writers.map_err(|error| unknown(&self.what, &error))?;
        if user.passport.rights().write && writers.contains(&user.identity.public_key()) {
            return Ok(());
        }
        Err(Failure::Reader { of: self.what.clone() })
    }

    fn put_back(
        &self,
        root: &Root,
        values: &Values,
        keep: &dyn Fn(&Record) -> Result<(), Failure>,
        bar: &indicatif::ProgressBar,
    ) -> Result<(Others, gc::Missing), Failure> {
        let mut options = Options::default();
        options.author = self.client.user().author.clone();
        let Target { store, keys, salt, .. } = &self.target;
        let view = Volume::as_of(Rc::new(store.clone()), keys.clone(), &options, root)
            .map_err(|errno| Failure::Past { reason: format!("its tree cannot be read: {errno}") })?;
        let roots = Roots::of(root);
        // Nodes take the owner's word alone: whoever else says it finds out what is missing, and no more.
        let identity: &Identity = &self.client.user().identity;
        let owner = self.settings.network.volume_owner();
        let speaker = || Speaker { identity, owner, salt: *salt, grant: None };
        let take_back = || gc::take_back(store, speaker(), &view, &roots, bar);
        let missing = take_back()?;
        if !missing.is_empty() {
            let advice =
                if self.is_owner { "" } else { ": the home that made the network may bring them back" };
            return Err(Failure::Past {
                reason: format!(
                    "{} stays as it is, for of that state {missing} can't be had from any node that answers{advice}",
                    self.what
                ),
            });
        }
        bar.set_message("putting the root back");
        let others = match &self.target.space {
            None => {
                let revoked = self.home.revocations(&self.settings.network)?;
                Others::OfDrive(self.sharer().put_back(root, keep, &revoked)?)
            }
            // Nobody else says who may do what meanwhile. Not over the looks, which may take hours: what is collected of a space that was
            // removed, `gc` takes back itself once the word is gone, and so does the look after this.
            Some((genesis, _)) if self.is_owner => {
                self.put_space_back(&Turn::take(self.home)?, genesis, (root, values), keep)?
            }
            Some(_) => self.write_back(root, keep)?,
        };
        bar.set_message("looking once more for what it needs");
        Ok((others, take_back()?))
    }

    fn sharer(&self) -> Sharer<'_> {
        let (network, user) = (&self.settings.network, self.client.user());
        Sharer { home: self.home, network, store: &self.target.store, user }
    }

    /// As the owner, who says anew who may do what.
    fn put_space_back(
        &self,
        turn: &Turn,
        genesis: &Signed<Genesis>,
        (root, values): (&Root, &Values),
        keep: &dyn Fn(&Record) -> Result<(), Failure>,
    ) -> Result<Others, Failure> {
        let sharer = self.sharer();
        let seal = space_lists::learn(&sharer, turn, genesis)?;
        let known_up_to = match seal {
            Seal::Others(_) => space_lists::learn_past(&sharer, turn, genesis, root, values)?,
            Seal::Ours | Seal::GivenUp => None,
        };
        // Whoever is in a group is so by the newest state of it that can be had; one that is behind the lists is refused.
        groups::known(&sharer, None)?;
        let revoked = Revocations::default();
        let published = space_lists::put_back(&sharer, turn, genesis, root, known_up_to, keep, &revoked)?;
        keeping::once(self.settings, self.client.overlay());
        Ok(Others::OfSpace(published, seal))
    }

    /// As one of its writers, who leaves it to the newest root who may do what.
    fn write_back(
        &self,
        root: &Root,
        keep: &dyn Fn(&Record) -> Result<(), Failure>,
    ) -> Result<Others, Failure> {
        let Target { store, keys, .. } = &self.target;
        let change = |charter: &mut Charter, newest: Option<&Charter>| -> Result<(), String> {
            let newest = newest.ok_or(
                "what stands in the place of the newest root does not open for this user: the home that made the network brings it back",
            )?;
            charter.take_access_of(newest);
            Ok(())
        };
        let keep = |newest: &Record| keep(newest).map_err(|failure| failure.to_string());
        let swap = |expected, payload| store.compare_and_swap(&keys.register, Some(expected), payload);
        sharing::put_back(store, keys, &self.client.user().author, root, &keep, &change, &swap)
            .map_err(|error| Failure::Sharing { reason: error.to_string() })?;
        Ok(Others::AsTheyWere)
    }
}
