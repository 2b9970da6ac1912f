//! Why a volume takes nothing now, or any more: for programs a number, for people a sentence.
//!
//! One type, from which come what operations answer, what the log says, and the last word of a mount: so none of them can say
//! of nodes that answer that they are away, or of a member that it is none. Some of these last until somebody says otherwise
//! ([`Cause::is_final`]); the others end by themselves, and who waits is right to.

use serde::{Deserialize, Serialize};

use crate::errno::Errno;

/// See the file's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// This user was removed from the network.
    Removed,
    /// The space is not sealed to this user any more: he was taken off its list, or one of its writers sealed it to others.
    TakenOff,
    /// This user may only read the space now.
    ReadsOnly,
    /// The nodes have no room.
    Full,
    /// Too few nodes answer.
    Away,
    /// The nodes do not take it from this user.
    Refused,
    /// Something else fails, with this number.
    Failed(i32),
}

impl Cause {
    /// What stands behind a number that the store, or an operation, has failed with.
    pub fn of(errno: Errno) -> Cause {
        match errno {
            Errno::EKEYREVOKED => Cause::Removed,
            Errno::ENOSPC => Cause::Full,
            Errno::ETIMEDOUT | Errno::EHOSTUNREACH => Cause::Away,
            Errno::EACCES => Cause::Refused,
            Errno(number) => Cause::Failed(number),
        }
    }

    /// What a program is told that wants to change something.
    pub fn errno(self) -> Errno {
        match self {
            Cause::Removed | Cause::TakenOff => Errno::EKEYREVOKED,
            Cause::ReadsOnly => Errno::EROFS,
            Cause::Full => Errno::ENOSPC,
            Cause::Away => Errno::ETIMEDOUT,
            Cause::Refused => Errno::EACCES,
            Cause::Failed(number) => Errno(number),
        }
    }

    /// Whether it stays so until somebody who may says otherwise: it is in vain to wait, or to start again.
    pub fn is_final(self) -> bool {
        matches!(self, Cause::Removed | Cause::TakenOff | Cause::ReadsOnly)
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Cause::Removed => "this user was removed from the network",
            Cause::TakenOff => "the space is not sealed to this user any more",
            Cause::ReadsOnly => "this user may only read the space now",
            Cause::Full => "the nodes have no room (ENOSPC)",
            Cause::Away => "too few nodes answer (ETIMEDOUT)",
            Cause::Refused => "the nodes do not take it from this user (EACCES)",
            Cause::Failed(number) => return Errno(*number).fmt(f),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_by_itself_is_told_from_what_takes_somebodys_word() {
        for errno in [Errno::ENOSPC, Errno::ETIMEDOUT, Errno::EACCES, Errno::EIO] {
            assert_eq!(Cause::of(errno).errno(), errno);
            assert!(!Cause::of(errno).is_final());
        }
        assert_eq!(Cause::of(Errno::EHOSTUNREACH), Cause::Away);
        for cause in [Cause::Removed, Cause::TakenOff, Cause::ReadsOnly] {
            assert!(cause.is_final());
        }
        // A member is not told that he is none.
        assert!(
            !Cause::TakenOff.to_string().contains("network")
                && !Cause::ReadsOnly.to_string().contains("network")
        );
        assert_eq!(Cause::Failed(5).to_string(), Errno::EIO.to_string());
    }
}
