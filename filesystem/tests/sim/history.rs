//! What the mounts did, and what must be left of it. Pure.
//!
//! Each content that a mount writes is a version; its parents are the contents that this mount saw in its place. So the
//! versions of all files make one graph, whoever wrote them, whatever the files are called by then, and three rules say
//! what a volume may hold in the end:
//!
//! - *nothing acknowledged is lost*: an acknowledged version is there, or one that was made from it, or somebody who saw
//!   it (or what was made from it) removed it;
//! - *nothing comes back*: a version is not there if one that was made from it was acknowledged, or its removal was;
//!   unless somebody who did not know of that gave the file another name meanwhile, who then keeps it, with what those
//!   who did not know of the name wrote to it;
//! - *nothing is invented*: what is there was written by somebody, whole.

use std::collections::{BTreeMap, BTreeSet};

use super::contents::Token;
use super::tree::{Held, Tree};

#[derive(Default, Debug)]
struct Version {
    /// Which machine wrote it.
    by: usize,
    /// The root that it was written on.
    on: u64,
    /// What was made from it.
    children: Vec<Token>,
    /// What may have been: somebody wrote there who may have seen it.
    perhaps: Vec<Token>,
    acknowledged: bool,
    /// Somebody who saw it removed it.
    removed: bool,
    removal_acknowledged: bool,
    /// Each time that somebody who saw it gave it another name or other attributes: the root from which on everybody knows
    /// of that, if it is known.
    kept: Vec<Option<u64>>,
}

/// See the file's header.
#[derive(Default, Debug)]
pub(crate) struct History {
    versions: BTreeMap<Token, Version>,
}

/// What one mount has done and not been promised yet.
#[derive(Default, Debug)]
pub(crate) struct Unacknowledged {
    written: Vec<Token>,
    removed: Vec<Token>,
    /// Versions, and which of the times that they were kept.
    kept: Vec<(Token, usize)>,
}

impl Unacknowledged {
    pub(crate) fn is_empty(&self) -> bool {
        self.written.is_empty() && self.removed.is_empty()
    }

    /// A call said that it did not write `token`: nothing is promised of it, though it may be there.
    pub(crate) fn retract(&mut self, token: Token) {
        self.written.retain(|written| *written != token);
    }

    pub(crate) fn join(&mut self, mut other: Unacknowledged) {
        self.written.append(&mut other.written);
        self.removed.append(&mut other.removed);
        self.kept.append(&mut other.kept);
    }
}

impl History {
    /// Machine `by` is about to write a new content on the root `on`.
    pub(crate) fn write(&mut self, by: usize, on: u64, unacknowledged: &mut Unacknowledged) -> Token {
        let token = Token(self.versions.len() as u32 + 1);
        self.versions.insert(token, Version { by, on, ..Version::default() });
        unacknowledged.written.push(token);
        token
    }

    /// `new` is where `seen` was.
    pub(crate) fn replaced(&mut self, seen: Token, new: Token) {
        if seen != new {
            self.version(seen).children.push(new);
        }
    }

    /// `new` is where something was that another machine may have changed in this moment: it may replace any.
    pub(crate) fn replaced_unseen(&mut self, new: Token) {
        for (token, version) in &mut self.versions {
            if *token != new {
                version.perhaps.push(new);
            }
        }
    }

    /// Whoever saw `seen` removed it.
    pub(crate) fn removed(&mut self, seen: Token, unacknowledged: &mut Unacknowledged) {
        self.version(seen).removed = true;
        unacknowledged.removed.push(seen);
    }

    /// Whoever saw `seen` gave its name to another file. Where that was renamed elsewhere too, it is there, and `seen` keeps
    /// its name: so nothing is promised of its removal.
    pub(crate) fn renamed_over(&mut self, seen: Token) {
        self.version(seen).removed = true;
    }

    /// Something was removed that another machine may have changed in this moment.
    pub(crate) fn removed_unseen(&mut self) {
        self.versions.values_mut().for_each(|version| version.removed = true);
    }

    /// Whoever saw `seen` named it otherwise, or touched it.
    pub(crate) fn kept(&mut self, seen: Token, unacknowledged: &mut Unacknowledged) {
        let kept = &mut self.version(seen).kept;
        kept.push(None);
        unacknowledged.kept.push((seen, kept.len() - 1));
    }

    /// All that is unacknowledged so far is promised now, and if it is `committed`, in that root at the latest.
    pub(crate) fn acknowledge(&mut self, unacknowledged: Unacknowledged, committed: Option<u64>) {
        for (token, time) in unacknowledged.kept {
            self.version(token).kept[time] = committed;
        }
        for token in unacknowledged.written {
            self.version(token).acknowledged = true;
        }
        for token in unacknowledged.removed {
            self.version(token).removal_acknowledged = true;
        }
    }

    fn version(&mut self, token: Token) -> &mut Version {
        self.versions.get_mut(&token).expect("somebody wrote it")
    }

    /// Returns `token` and all that was made from it; with `perhaps`, also what may have been.
    fn descendants(&self, token: Token, perhaps: bool) -> BTreeSet<Token> {
        let (mut found, mut left) = (BTreeSet::from([token]), vec![token]);
        while let Some(token) = left.pop() {
            let Version { children, perhaps: more, .. } = &self.versions[&token];
            for child in children.iter().chain(more.iter().filter(|_| perhaps)) {
                if found.insert(*child) {
                    left.push(*child);
                }
            }
        }
        found
    }

    /// Whether somebody named this version otherwise, or one that it was made from, of whose name its writer knew nothing.
    fn is_kept(&self, token: Token) -> bool {
        let on = self.versions[&token].on;
        let may_be_kept = |kept: &Option<u64>| kept.is_none_or(|known_from| on < known_from);
        (self.versions.iter()).any(|(from, version)| {
            version.kept.iter().any(may_be_kept) && self.descendants(*from, false).contains(&token)
        })
    }

    /// Returns what is wrong with `tree` as the end of this history.
    pub(crate) fn faults(&self, tree: &Tree) -> Vec<String> {
        let there: BTreeMap<Token, &String> = (tree.iter())
            .filter_map(|(path, held)| match held {
                Held::Content(token) => Some((*token, path)),
                _ => None,
            })
            .collect();
        let mut faults = Vec::new();
        for (token, version) in &self.versions {
            let is_accounted_for = (self.descendants(*token, true).iter())
                .any(|token| there.contains_key(token) || self.versions[token].removed);
            if version.acknowledged && !is_accounted_for {
                faults.push(format!("{token:?} of machine {} was acknowledged and is gone", version.by));
            }
            let Some(path) = there.get(token) else { continue };
            let descendants = self.descendants(*token, false);
            let replaced = (descendants.iter()).find(|child| {
                *child != token && self.versions[child].acknowledged && !self.is_cycle(*token, **child)
            });
            if let Some(child) = replaced.filter(|_| !self.is_kept(*token)) {
                faults.push(format!("{path} holds {token:?}, which {child:?} had replaced for good"));
            }
            if version.removal_acknowledged && !self.is_kept(*token) {
                faults.push(format!("{path} holds {token:?}, which was removed for good"));
            }
        }
        let unknown = there.keys().find(|token| !self.versions.contains_key(token));
        faults.extend(unknown.map(|token| format!("nobody wrote {token:?}")));
        faults
    }

    /// Whether `ancestor` was also made from `child`: something moved back and forth, and nothing can be said.
    fn is_cycle(&self, ancestor: Token, child: Token) -> bool {
        self.descendants(child, false).contains(&ancestor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(held: &[Token]) -> Tree {
        held.iter().map(|token| (format!("/{}", token.0), Held::Content(*token))).collect()
    }

    #[test]
    fn what_was_acknowledged_is_there_or_its_successor_is() {
        let (mut history, mut mine) = (History::default(), Unacknowledged::default());
        let first = history.write(0, 1, &mut mine);
        assert_eq!(history.faults(&tree(&[])), [""; 0], "nothing was promised");
        history.acknowledge(std::mem::take(&mut mine), None);
        assert_eq!(history.faults(&tree(&[])).len(), 1);
        assert_eq!(history.faults(&tree(&[first])), [""; 0]);
        let second = history.write(0, 1, &mut mine);
        history.replaced(first, second);
        assert_eq!(history.faults(&tree(&[first])), [""; 0]);
        assert_eq!(history.faults(&tree(&[second])), [""; 0]);
        history.acknowledge(std::mem::take(&mut mine), None);
        assert_eq!(history.faults(&tree(&[first])).len(), 2, "the second is gone, and the first came back");
        history.removed(second, &mut mine);
        assert_eq!(history.faults(&tree(&[])), [""; 0]);
        history.acknowledge(mine, None);
        assert_eq!(history.faults(&tree(&[second])).len(), 1);
    }

    #[test]
    fn two_that_were_made_from_one_are_both_kept() {
        let (mut history, mut mine, mut theirs) = Default::default();
        let first = History::write(&mut history, 0, 1, &mut mine);
        let (ours, other) = (history.write(0, 1, &mut mine), history.write(1, 1, &mut theirs));
        history.replaced(first, ours);
        history.replaced(first, other);
        history.acknowledge(mine, None);
        history.acknowledge(theirs, None);
        assert_eq!(history.faults(&tree(&[ours])).len(), 1);
        assert_eq!(history.faults(&tree(&[ours, other])), [""; 0]);
    }

    #[test]
    fn what_was_replaced_stays_only_under_a_name_that_its_writer_did_not_know_of() {
        let (mut history, mut mine, mut theirs) = Default::default();
        let first = History::write(&mut history, 0, 1, &mut mine);
        history.kept(first, &mut theirs);
        // The first machine goes on in the old place, and replaces that in the end.
        let second = history.write(0, 4, &mut mine);
        history.replaced(first, second);
        let third = history.write(0, 4, &mut mine);
        history.replaced(second, third);
        history.acknowledge(mine, Some(5));
        assert_eq!(
            history.faults(&tree(&[second, third])),
            [""; 0],
            "the name may have been given meanwhile"
        );
        history.acknowledge(theirs, Some(4));
        assert_eq!(history.faults(&tree(&[second, third])).len(), 1, "its writer knew of the name");
        assert_eq!(history.faults(&tree(&[first, third])), [""; 0]);
    }
}
