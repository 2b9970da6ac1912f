//! Why a space is not opened, for programs and for people, and why not at a name that leads to it.
//!
//! Not here: what a list says (`filesystem::access::list`).

use dht::ReadError;
use filesystem::Errno;
use filesystem::access::RootError;
use filesystem::access::list::Found;
use filesystem::format::Shown;
use filesystem::volume::Cause;

/// Why a space is not opened.
pub(super) struct Refused {
    /// For programs.
    pub(super) errno: Errno,
    /// For what waits in its journal.
    pub(super) cause: Cause,
    /// For people.
    pub(super) reason: String,
    /// There is no such space any more.
    pub(super) is_gone: bool,
}

impl Refused {
    /// For a reason that stands behind its number.
    pub(super) fn new(errno: Errno, reason: impl Into<String>) -> Refused {
        Refused { errno, cause: Cause::of(errno), reason: reason.into(), is_gone: false }
    }

    /// Since nothing is taken from this user any more.
    pub(super) fn of(cause: Cause, reason: &str) -> Refused {
        Refused { errno: Errno::EACCES, cause, reason: reason.into(), is_gone: false }
    }
}

/// Since nobody is there that could say what is in it.
pub(super) fn away() -> Refused {
    Refused::new(Errno::EHOSTUNREACH, "the nodes that keep it do not answer")
}

/// Why a space is not shown at what can't be the name of any.
pub(super) fn not_its_name() -> Refused {
    let reason = "its owner called it otherwise: somebody who may write to the drive put it there";
    Refused::new(Errno::EACCES, reason)
}

/// Why a space is not shown as `name`: whoever writes the drive can put its link at any. Names are the same to the byte or not at
/// all: what shows alike may be another's. Its writers can take the owner's list away, which says what it is called: then it is what
/// it was `known` as on this machine, while that list was there.
pub(super) fn not_of_that_name(found: &Found, name: &str, known: Option<&str>) -> Option<String> {
    match found {
        Found::List(list) if list.name() == name => None,
        Found::List(list) => Some(format!(
            "it is the one that its owner put at {}: somebody who may write to the drive put it in another's place",
            Shown::of(&list.path)
        )),
        Found::Nothing | Found::Forged if known == Some(name) => None,
        Found::Nothing | Found::Forged => Some(
            "it has no list of its owner's, so that nobody can tell whether it belongs there: one of its writers changed that; the \
             owner signs a new one with `share`"
                .into(),
        ),
    }
}

pub(super) fn not_read(error: ReadError) -> Refused {
    let errno = match error {
        ReadError::NoQuorum { .. } => Errno::EHOSTUNREACH,
        _ => Errno::EIO,
    };
    Refused::new(errno, error.to_string())
}

pub(super) fn not_opened(error: RootError) -> Refused {
    match error {
        RootError::NotAReader => {
            Refused::of(Cause::TakenOff, "this user is not on its list: ask the drive's owner to share it")
        }
        RootError::GivenUp => Refused {
            is_gone: true,
            ..Refused::of(Cause::TakenOff, "its owner removed it: nobody opens what was in it any more")
        },
        other => Refused::new(Errno::EIO, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use dht::RegisterAddress;
    use dht::block::mutable::Signed;
    use filesystem::access::list::AccessList;
    use reactor::crypto::Identity;

    use super::*;

    #[test]
    fn a_space_is_shown_at_the_name_that_its_owner_gave_it_also_if_its_list_was_taken_away() {
        let list = AccessList::new(RegisterAddress([9; 32]), "a/board");
        let list = Found::List(Signed::sign(&Identity::from_seed(&[1; 32]), list));
        let is_shown = |found: &Found, name, known| not_of_that_name(found, name, known).is_none();
        assert!(is_shown(&list, "board", None) && is_shown(&list, "board", Some("other")));
        assert!(!is_shown(&list, "accounts", None) && !is_shown(&list, "accounts", Some("accounts")));
        for taken_away in [Found::Nothing, Found::Forged] {
            assert!(is_shown(&taken_away, "board", Some("board")));
            assert!(!is_shown(&taken_away, "accounts", Some("board")));
            assert!(!is_shown(&taken_away, "accounts", None), "a machine that never saw its list");
        }
    }

    #[test]
    fn names_that_look_alike_where_they_are_shown_are_two() {
        let list = AccessList::new(RegisterAddress([9; 32]), "a/R&D");
        let list = Found::List(Signed::sign(&Identity::from_seed(&[1; 32]), list));
        for (name, is_its) in [("R&D", true), ("R+D", false), ("R?D", false)] {
            assert_eq!(not_of_that_name(&list, name, None).is_none(), is_its, "{name}");
            assert_eq!(not_of_that_name(&Found::Nothing, name, Some("R&D")).is_none(), is_its, "{name}");
        }
    }
}
