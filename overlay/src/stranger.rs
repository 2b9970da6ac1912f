//! Somebody who is no member yet, at a node's door.
//!
//! Not here: what the letter says ([`crate::invitation`]), and how long one goes on asking.

use std::rc::Rc;

use reactor::crypto::Identity;
use reactor::net::TcpStream;
use reactor::net::tls::{self, Expect};

use crate::admission;
use crate::contact::Contact;
use crate::dial::{DIAL_TIMEOUT, DialError, Place};
use crate::invitation::{Answer, Letter};

/// Brings `letter` to the node `way`, at the first of its addresses that answers, and hears whether there is a reply.
///
/// # Errors
/// If it can't be reached there, or somebody else is.
///
/// # Suspends
/// At most some seconds for each address.
pub fn bring(identity: &Rc<Identity>, letter: &Letter, way: &Contact) -> Result<Answer, DialError> {
    let mut failure = DialError::NoAddress;
    for &address in &way.addresses {
        let place = Place::At(address);
        let ask = || {
            let connect = |source| DialError::Connect { address, source };
            let stream = TcpStream::connect_one(address).map_err(connect)?;
            stream.set_nodelay(true).map_err(connect)?;
            let handshake = tls::connect(stream, identity, Expect::Key(way.public_key));
            let stream = handshake.map_err(|source| DialError::Handshake { address, source })?;
            let answer = admission::stranger(&mut &stream, letter);
            answer.map_err(|source| DialError::Admission { place, source })
        };
        match reactor::timeout(DIAL_TIMEOUT, ask).unwrap_or(Err(DialError::TimedOut { place })) {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
