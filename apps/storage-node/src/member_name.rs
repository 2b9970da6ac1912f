//! What a member is called. People say names where they mean keys, so no name passes for anything else that can be said there:
//! not for the digits of a key, not for a node that the network was made with, and not for a row of what `members` shows.
//!
//! The newcomer's own program sees to that too, and a newcomer may have another. Not here: that one name is one member (`roll`).

use filesystem::format::printable;
use overlay::NodeId;
use reactor::crypto::PublicKey;

/// Hexadecimal digits of an id, as they are shown.
const ID_DIGITS: usize = 12;
/// Bytes of what a newcomer calls itself that are kept: lists keep 64, and what tells it from others of that name comes behind.
const SIZE_MAX: usize = 56;

/// What a newcomer with this key is called who wants to be called `wanted`.
pub(crate) fn of_newcomer(wanted: &str, key: &PublicKey) -> String {
    let mut name = printable(wanted).split_whitespace().collect::<Vec<_>>().join("_");
    name.truncate(name.floor_char_boundary(SIZE_MAX));
    if name.is_empty() || is_like_a_nodes(&name) {
        return NodeId::of(key).to_string()[..ID_DIGITS].to_owned();
    }
    if name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        name.push('@');
    }
    name
}

/// Whether a group may be called so, as far as that goes: it passes for no key's digits, and for no node.
pub(crate) fn is_free_for_a_group(name: &str) -> bool {
    !is_like_a_nodes(name) && !name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether it is what `members` calls those that the network was made with, or nearly so.
fn is_like_a_nodes(name: &str) -> bool {
    let rest = name.get(..4).filter(|start| start.eq_ignore_ascii_case("node")).map(|_| &name[4..]);
    rest.is_some_and(|rest| !rest.chars().any(char::is_alphabetic))
}

#[cfg(test)]
mod tests {
    use reactor::crypto::Identity;

    use super::*;

    #[test]
    fn no_name_passes_for_digits_a_node_or_a_row() {
        let key = Identity::from_seed(&[10; 32]).public_key();
        let named = |wanted: &str| of_newcomer(wanted, &key);
        let own = NodeId::of(&key).to_string()[..12].to_owned();
        for plain in ["ann@laptop", "Änne", "nodejs", "node@box", "a.b-c_d"] {
            assert_eq!(named(plain), plain);
        }
        assert_eq!(named("facade"), "facade@");
        assert_eq!(named("group:family"), "group?family", "nor for what is said of groups");
        assert_eq!(named("3F2A9C001122"), "3F2A9C001122@");
        for none in ["", "  ", "node", "node 1", "Node-2", "node_"] {
            assert_eq!(named(none), own, "{none:?}");
        }
        assert_eq!(named(" ann   removed 3\u{a0}days ago "), "ann_removed_3?days_ago");
        assert_eq!(named("a\u{1b}[2J\nb"), "a??2J?b");
        assert_eq!(named(&"ü".repeat(40)).len(), SIZE_MAX);
        for (name, is_free) in [("family", true), ("facade", false), ("Node-2", false), ("nodejs", true)] {
            assert_eq!(is_free_for_a_group(name), is_free, "{name}");
        }
    }
}
