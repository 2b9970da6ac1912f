//! What two ends tell each other about themselves, once each knows that the other is not of version 1. Pure.
//!
//! What it is not: authentication. Whatever a peer says here, it only limits what it will be sent.

use serde::{Deserialize, Serialize};

use super::frame::{ANNOUNCE, FrameError, VERSION};
use super::tolerant;

/// Calls that stream.
pub const FEATURE_STREAMS: u64 = 1;
/// Requests with a priority.
pub const FEATURE_PRIORITIES: u64 = 2;
/// Responses of the status `Denied`.
pub const FEATURE_DENIALS: u64 = 4;
/// Draining before the goodbye.
pub const FEATURE_DRAINING: u64 = 8;
/// Metadata, services by name, and the statuses from `UnknownService` on.
pub const FEATURE_METADATA: u64 = 16;
/// All that we speak.
pub const FEATURES: u64 =
    FEATURE_STREAMS | FEATURE_PRIORITIES | FEATURE_DENIALS | FEATURE_DRAINING | FEATURE_METADATA;

/// The message of a `Hello` frame. Later versions append fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version that the sender speaks.
    pub version: u32,
    /// What it speaks beyond that, a bit each.
    pub features: u64,
}

/// What is known of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Nothing yet: it is sent what version 1 understands.
    Unknown,
    /// It has announced a later version; its hello is on its way.
    Announced,
    /// It speaks this version, the lower of the two ends', and both speak these features.
    Agreed {
        /// 1 or more.
        version: u32,
        /// The features of both.
        features: u64,
    },
}

impl Wire {
    /// A peer of the first version.
    pub const FIRST: Wire = Wire::Agreed { version: 1, features: 0 };

    /// What the peer's first frame tells, if it is a `Cancel` of this call.
    pub fn on_first_cancel(call: u32) -> Wire {
        let (mark, version) = (call >> 16, call & 0xffff);
        if mark == ANNOUNCE >> 16 && version > 1 { Wire::Announced } else { Wire::FIRST }
    }

    /// Takes the peer's hello.
    ///
    /// # Errors
    /// [`FrameError::BadHello`] if it was not announced, came before, or cannot be read.
    pub fn on_hello(self, message: &[u8]) -> Result<Wire, FrameError> {
        let hello: Hello = tolerant::from_bytes(message).map_err(|_| FrameError::BadHello)?;
        if self != Wire::Announced || hello.version < 2 {
            return Err(FrameError::BadHello);
        }
        Ok(Wire::Agreed { version: hello.version.min(VERSION), features: hello.features & FEATURES })
    }

    /// Whether the peer is known to speak `feature`.
    pub fn has(self, feature: u64) -> bool {
        matches!(self, Wire::Agreed { features, .. } if features & feature == feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serialization::to_bytes;

    #[test]
    fn the_lower_version_and_the_common_features_are_agreed_on() {
        let theirs = to_bytes(&Hello { version: 9, features: FEATURE_STREAMS | 1 << 60 });
        let agreed = Wire::Announced.on_hello(&theirs).unwrap();
        assert_eq!(agreed, Wire::Agreed { version: VERSION, features: FEATURE_STREAMS });
        assert!(agreed.has(FEATURE_STREAMS) && !agreed.has(FEATURE_PRIORITIES));
    }

    #[test]
    fn a_hello_with_fields_of_a_later_version_is_read_as_far_as_it_is_known() {
        let theirs = to_bytes(&(3u32, FEATURES, "a field", vec![1, 2]));
        assert!(Wire::Announced.on_hello(&theirs).is_ok());
    }

    #[test]
    fn a_hello_that_comes_twice_unannounced_or_broken_is_an_error() {
        let hello = to_bytes(&Hello { version: 2, features: 0 });
        for wire in [Wire::Unknown, Wire::FIRST, Wire::Agreed { version: 2, features: 0 }] {
            assert_eq!(wire.on_hello(&hello), Err(FrameError::BadHello));
        }
        assert_eq!(Wire::Announced.on_hello(b"\xc1"), Err(FrameError::BadHello));
        let first = to_bytes(&Hello { version: 1, features: 0 });
        assert_eq!(Wire::Announced.on_hello(&first), Err(FrameError::BadHello));
    }

    #[test]
    fn only_the_announcement_announces() {
        assert_eq!(Wire::on_first_cancel(ANNOUNCE), Wire::Announced);
        assert_eq!(Wire::on_first_cancel(0xffff_0007), Wire::Announced, "of a version to come");
        assert_eq!(Wire::on_first_cancel(0xffff_0001), Wire::FIRST);
        assert_eq!(Wire::on_first_cancel(2), Wire::FIRST);
    }
}
