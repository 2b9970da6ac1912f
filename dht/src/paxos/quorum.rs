//! Who has answered, and whether that is enough.
//!
//! Members are known by their index in the genesis record's list, so a set of them is one word.

/// The largest replica set: what fits in a [`Voters`], and more than anyone should want.
pub const MEMBER_COUNT_MAX: usize = 16;

/// How many members there are and how many must agree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Quorum {
    /// Members in all.
    pub members: usize,
    /// Members that make a quorum.
    pub needed: usize,
}

impl Quorum {
    /// The smallest majority of `members`.
    ///
    /// # Panics
    /// If there are none, or more than [`MEMBER_COUNT_MAX`]: the genesis record's decoder refuses those.
    pub fn majority(members: usize) -> Quorum {
        assert!(
            (1..=MEMBER_COUNT_MAX).contains(&members),
            "a replica set has 1 to {MEMBER_COUNT_MAX} members"
        );
        Quorum { members, needed: members / 2 + 1 }
    }

    /// Whether `voters` suffice.
    pub fn reached_by(&self, voters: Voters) -> bool {
        voters.count() >= self.needed
    }

    /// Whether a quorum is still possible once `lost` will not vote.
    pub fn possible_without(&self, lost: Voters) -> bool {
        self.members - lost.count() >= self.needed
    }
}

/// A set of members. Adding one twice counts once, as a duplicated message must.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Voters(u16);

impl Voters {
    /// Adds the member at `index`.
    pub fn add(&mut self, index: usize) {
        debug_assert!(index < MEMBER_COUNT_MAX);
        self.0 |= 1 << index;
    }

    /// Whether the member at `index` is in.
    pub fn contains(&self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    /// How many are in.
    pub fn count(&self) -> usize {
        self.0.count_ones() as usize
    }

    /// Those in either set.
    pub fn union(&self, other: Voters) -> Voters {
        Voters(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_two_quorums_share_a_member() {
        for members in 1..=MEMBER_COUNT_MAX {
            let quorum = Quorum::majority(members);
            assert!(2 * quorum.needed > members);
        }
    }

    #[test]
    fn a_duplicate_vote_counts_once() {
        let mut voters = Voters::default();
        voters.add(1);
        voters.add(1);
        assert!(!Quorum::majority(3).reached_by(voters));
        voters.add(2);
        assert!(Quorum::majority(3).reached_by(voters));
    }
}
