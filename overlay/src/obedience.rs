//! Whether a life of our key that is to stop does so.
//!
//! An honest process stops as soon as it hears of us, and its last word says that it is the last. But nobody knows when it hears: a
//! laptop may be closed before our answer comes, and our own answer may have to wait for its turn. So its time begins when it has *shown*
//! that it heard us, by naming us, and not when we saw it first. From then on it has a [`TURN`], and one word more that may have been on its
//! way. Whoever says that this was his last word has obeyed, however late; if he says another one he has not, at once.
//!
//! Who never names us may be away again each time that he is answered, but not for ever: a few words of his that are newer than our
//! answers, each a turn after the one before, are forgiven ([`UNHEARD_MAX`]).
//!
//! Pure: it is told the time. Not here: which of two is to stop (`life.rs`), and what is told of it (`twin.rs`).

use std::time::Instant;

use crate::signers::TURN;

/// Words of one who has not shown that he heard us, each after an answer of ours, that are no proof of anything yet.
const UNHEARD_MAX: u32 = 4;

/// Words that are forgiven after somebody's time: what he said before he obeyed, as an older release does not mark its last.
const LATE_MAX: u32 = 1;

/// A word of a life that is to stop, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) version: u64,
    /// It names us as whom it has seen.
    pub(crate) names_us: bool,
    /// It says that it is the last one.
    pub(crate) is_last: bool,
    /// It follows what we say, by which he was told of us.
    pub(crate) is_after_ours: bool,
}

/// What is known of how a life obeys.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Obedience {
    /// The newest word that was judged.
    version: Option<u64>,
    heard_at: Option<Instant>,
    /// When it last said something new before it had heard us, and how often it did.
    unheard_at: Option<Instant>,
    unheard: u32,
    late: u32,
    has_ended: bool,
    is_lawless: bool,
}

impl Obedience {
    /// Whether whoever says that, having said what he did before, does not obey.
    pub(crate) fn is_broken_by(&mut self, said: Said, now: Instant) -> bool {
        // Others may show the same one once more, or an older one.
        if self.version.is_some_and(|version| said.version <= version) {
            return self.is_lawless;
        }
        self.version = Some(said.version);
        self.is_lawless = self.judge(said, now);
        self.is_lawless
    }

    fn judge(&mut self, said: Said, now: Instant) -> bool {
        if self.has_ended {
            return true;
        }
        if said.is_last {
            self.has_ended = true;
            return false;
        }
        if said.names_us && self.heard_at.is_none() {
            self.heard_at = Some(now);
            return false;
        }
        if !said.is_after_ours {
            return self.is_lawless;
        }
        if let Some(heard_at) = self.heard_at {
            self.late += u32::from(now >= heard_at + TURN);
            return self.late > LATE_MAX;
        }
        if self.unheard_at.is_none_or(|before| now >= before + TURN) {
            self.unheard_at = Some(now);
            self.unheard += 1;
        }
        self.unheard > UNHEARD_MAX
    }

    /// Whether it may be honest whatever was thought of it before we knew that it had heard us: it has obeyed, or has time yet.
    pub(crate) fn is_excused(&self, now: Instant) -> bool {
        let has_time = self.heard_at.is_some_and(|heard_at| now < heard_at + TURN);
        !self.is_lawless && (self.has_ended || has_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Says the next word, so much after the first.
    struct Teller {
        obedience: Obedience,
        began: Instant,
        version: u64,
    }

    impl Teller {
        fn new() -> Teller {
            Teller { obedience: Obedience::default(), began: Instant::now(), version: 0 }
        }

        fn says(&mut self, turns: u32, names_us: bool, is_last: bool) -> bool {
            self.version += 1;
            self.again(turns, names_us, is_last)
        }

        fn again(&mut self, turns: u32, names_us: bool, is_last: bool) -> bool {
            let said = Said { version: self.version, names_us, is_last, is_after_ours: true };
            self.obedience.is_broken_by(said, self.began + turns * TURN)
        }
    }

    #[test]
    fn who_hears_late_and_obeys_has_obeyed() {
        let mut copy = Teller::new();
        assert!(!copy.says(0, false, false));
        // It wakes after an hour elsewhere, says where it is, hears, and stops.
        assert!(!copy.says(60, false, false) && !copy.says(60, true, true));
        assert!(!copy.again(90, true, true), "others show it once more");
        assert!(copy.obedience.is_excused(copy.began + 90 * TURN));
        // As one of an older release does it, which does not say that it is the last.
        let mut older = Teller::new();
        assert!(!older.says(0, false, false) && !older.says(60, true, false));
        assert!(!older.says(70, true, false) && older.says(71, true, false));
    }

    #[test]
    fn who_goes_on_after_he_heard_or_after_his_last_word_does_not_obey() {
        let mut thief = Teller::new();
        assert!(!thief.says(0, true, false) && !thief.says(0, true, false), "he has time");
        assert!(!thief.says(1, true, false) && thief.says(1, true, false));
        assert!(!thief.obedience.is_excused(thief.began + TURN));
        let mut liar = Teller::new();
        assert!(!liar.says(0, true, true) && liar.says(0, true, true));
        assert!(liar.again(5, true, true) && !liar.obedience.is_excused(liar.began));
    }

    #[test]
    fn who_never_names_us_is_not_believed_for_ever() {
        let mut thief = Teller::new();
        let told: Vec<u32> = (0..8).filter(|turn| thief.says(*turn, false, false)).collect();
        assert_eq!(told, [4, 5, 6, 7]);
        // But for the case that it was honest all the while.
        assert!(!thief.says(9, true, true) && thief.obedience.is_excused(thief.began + 9 * TURN));
        let mut busy = Teller::new();
        assert!((0..100).all(|_| !busy.says(0, false, false)), "it has no time to hear us");
        let said = Said { version: 200, names_us: false, is_last: false, is_after_ours: false };
        assert!((0..100).all(|turn| {
            let said = Said { version: 200 + u64::from(turn), ..said };
            !busy.obedience.is_broken_by(said, busy.began + turn * TURN + Duration::from_secs(1))
        }));
    }
}
