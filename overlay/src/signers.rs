//! Whether somebody else signs with our key who does not go by what processes of this program do, and when what is said in our name
//! is said anew by us.
//!
//! Two honest processes with one key name each other's lives and agree on who stops ([`crate::life`]). Who has stolen the key need
//! not: he signs as nobody's life, or as another one each time, and never says whom he has heard. All that he does then is to be newer
//! than we are, again and again.
//!
//! So is what somebody has forgotten: a home that was put back from a backup, on a machine whose clock is behind, is shown what its
//! earlier lives said, whom it does not know. But they are dead, and say nothing more. Whoever is shown such a record says his own a
//! *leap* above it ([`LEAP_MS`], a year), and is shown nothing newer then that they said within a year of each other. What is newer
//! even than that, once it was said, somebody signs who is there. (Or the clock is a year behind, or was ahead by that, as the home was put
//! back: the words that are shown leave it open.)
//!
//! Two more things are sure at once. A life knows what it signed: another record *of its own* at its version or above is by a second
//! process that has its memory, a virtual machine that was cloned as it ran, or by one that was put back to it. And nobody but who means to
//! have the last word signs a version that leaves no room for a leap.
//!
//! Each word of ours costs the disk and everybody connected. [`BURST`] of them are said at once, which is what two need who meet;
//! from then on each waits its [`TURN`], and follows all that was shown until then.
//!
//! Pure: it is told the time. Not here: who says it (`stating.rs`), and what is told of it (`twin.rs`).

use std::time::{Duration, Instant};

use crate::life::{Life, LifeName, LifeWord};
use crate::record::{LEAP_MS, NodeRecord};

/// How often the last word is ours, at most, where others go on saying theirs: each would follow the other's at once, without end.
pub(crate) const TURN: Duration = Duration::from_secs(60);

/// Words that are said at once: two homes that meet say each where they are, whom they have met, and who stops.
const BURST: u32 = 4;

/// By whom a record is that stands in our name, and is not the one that we said last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Author {
    /// A life that we began from.
    Ancestor,
    /// Another process, which has seen what we say.
    Twin,
    /// A life that we know nothing of, or nobody's.
    Stranger,
    /// Somebody who is there, whatever it says.
    Another,
}

/// Who said `shown`, which is verified and not what `life` says now, `own`; none if it is an old word that nothing follows from.
pub(crate) fn author(shown: &NodeRecord, own: &NodeRecord, life: &Life) -> Option<Author> {
    let is_newer = shown.is_newer_than(own);
    let said_by = shown.life().map(LifeWord::name);
    if said_by == Some(life.name()) {
        return (shown.version() >= own.version()).then_some(Author::Another);
    }
    if shown.life().is_some_and(|word| word.is_beside(life.name())) {
        return Some(Author::Twin);
    }
    match () {
        () if !is_newer => None,
        () if shown.leaves_no_room() => Some(Author::Another),
        () if said_by.is_some_and(|said_by| life.is_after(said_by)) => Some(Author::Ancestor),
        () => Some(Author::Stranger),
    }
}

/// What the next word of ours is to follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Above {
    /// The version above which it is, if that which was shown is newer than what we say.
    pub(crate) version: Option<u64>,
    /// The life that it names.
    pub(crate) beside: Option<LifeName>,
    is_stranger: bool,
}

impl Above {
    /// What follows a record of this author.
    pub(crate) fn of(shown: &NodeRecord, own: &NodeRecord, author: Author) -> Above {
        let is_stranger = author == Author::Stranger;
        let leap = if is_stranger { LEAP_MS } else { 0 };
        let version = shown.is_newer_than(own).then(|| shown.version().saturating_add(leap));
        Above { version, beside: shown.life().map(LifeWord::name), is_stranger }
    }

    fn and(self, later: Above) -> Above {
        Above {
            version: self.version.max(later.version),
            beside: later.beside.or(self.beside),
            is_stranger: self.is_stranger || later.is_stranger,
        }
    }
}

/// What was shown and what was said to it.
#[derive(Debug)]
pub(crate) struct Signers {
    /// Words that may be said at once, and since when there is no other one.
    at_once: u32,
    counted_at: Instant,
    /// What is to be followed.
    next: Option<Above>,
    /// Somebody is at it.
    is_answering: bool,
    /// We have said what we say after a stranger.
    has_followed_stranger: bool,
}

impl Signers {
    pub(crate) fn new(now: Instant) -> Signers {
        Signers {
            at_once: BURST,
            counted_at: now,
            next: None,
            is_answering: false,
            has_followed_stranger: false,
        }
    }

    /// Whether what this author says, now that it is shown, is by somebody who is there and does not say whom he has heard.
    pub(crate) fn is_by_another(&self, author: Author) -> bool {
        match author {
            Author::Another => true,
            // What was shown while ours was on its way nobody has said after it.
            Author::Stranger => self.has_followed_stranger && !self.is_answering,
            Author::Ancestor | Author::Twin => false,
        }
    }

    /// This is to be followed; whether whoever says so has to begin to answer, since nobody does.
    pub(crate) fn on_shown(&mut self, above: Above) -> bool {
        self.next = Some(self.next.map_or(above, |next| next.and(above)));
        !std::mem::replace(&mut self.is_answering, true)
    }

    /// How long whoever answers waits before the next word.
    pub(crate) fn pause(&mut self, now: Instant) -> Duration {
        let turns = now.saturating_duration_since(self.counted_at).as_secs() / TURN.as_secs();
        if turns > 0 {
            self.at_once = self.at_once.saturating_add(turns.min(u64::from(BURST)) as u32).min(BURST);
            self.counted_at = now;
        }
        match self.at_once {
            0 => (self.counted_at + TURN).saturating_duration_since(now),
            _ => Duration::ZERO,
        }
    }

    /// What is to be said now, if anything is.
    pub(crate) fn take(&mut self) -> Option<Above> {
        self.at_once = self.at_once.saturating_sub(1);
        self.next.take()
    }

    /// That was said, and is of this version; whether there is more to be followed.
    pub(crate) fn on_said(&mut self, above: Above, version: u64) -> bool {
        self.has_followed_stranger |= above.is_stranger;
        // It was shown as the word was on its way that follows it as well.
        let is_followed = |next: &mut Above| {
            next.version.is_none_or(|next| next < version)
                && (next.beside.is_none() || next.beside == above.beside)
        };
        self.next.take_if(is_followed);
        self.next.is_some()
    }

    /// Whoever answered is done, or could not go on.
    pub(crate) fn end(&mut self) {
        self.is_answering = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Statement;
    use reactor::crypto::{Identity, PublicKey};

    fn identity(number: u8) -> Identity {
        Identity::from_seed(&[number; 32])
    }

    fn network() -> PublicKey {
        identity(1).public_key()
    }

    fn begin(last: Option<&NodeRecord>) -> Life {
        Life::begin(Identity::generate(), last.and_then(NodeRecord::life), false, Instant::now())
    }

    fn says(life: Option<&Life>, version: u64, beside: Option<&Life>) -> NodeRecord {
        let node = identity(2);
        let beside = beside.map(|beside| (beside.name(), 5));
        let word = |body: &[u8]| life.map(|life| life.word(&network(), &node.public_key(), body, beside));
        NodeRecord::sign_in(&node, &network(), version, Statement::default(), word)
    }

    /// One process of a node, shown what stands in its name.
    struct Process {
        life: Life,
        own: NodeRecord,
        signers: Signers,
        now: Instant,
    }

    impl Process {
        fn begin(last: Option<&NodeRecord>, version: u64) -> Process {
            let life = begin(last);
            let own = says(Some(&life), version, None);
            let now = Instant::now();
            Process { life, own, signers: Signers::new(now), now }
        }

        /// Whether that tells that somebody else is there; whatever is to be said is said.
        fn is_shown(&mut self, shown: &NodeRecord) -> bool {
            let is_told = self.is_shown_amid(shown);
            self.answer();
            is_told
        }

        /// As this, while the answer to something is on its way.
        fn is_shown_amid(&mut self, shown: &NodeRecord) -> bool {
            let Some(author) = author(shown, &self.own, &self.life) else { return false };
            let is_told = self.signers.is_by_another(author);
            self.signers.on_shown(Above::of(shown, &self.own, author));
            is_told
        }

        fn answer(&mut self) {
            while let Some(above) = self.signers.take() {
                self.say(above.version);
                self.signers.on_said(above, self.own.version());
            }
            self.signers.end();
        }

        fn say(&mut self, above: Option<u64>) {
            let version = self.own.version().max(above.unwrap_or(0)) + 1;
            self.own = says(Some(&self.life), version, None);
        }
    }

    const DAY: u64 = 24 * 3600 * 1000;

    #[test]
    fn who_signs_again_what_is_newer_than_our_answer_is_there_whatever_life_he_says_to_be() {
        let lives: [fn() -> Option<Life>; 2] = [|| None, || Some(begin(None))];
        for life in lives {
            let mut node = Process::begin(None, 1000);
            let first = says(life().as_ref(), 2000, None);
            assert!(!node.is_shown(&first), "that may be forgotten");
            let own = node.own.version();
            assert!(own > 2000 && !node.is_shown(&first), "it is older by now");
            assert!(node.is_shown(&says(life().as_ref(), own + 1, None)));
        }
    }

    #[test]
    fn a_home_that_was_put_back_is_alone_whatever_its_dead_lives_are_known_to_have_said() {
        let [backup, later, last] = [0; 3].map(|_| begin(None));
        let kept = says(Some(&backup), 10 * DAY, None);
        // Its clock is behind, and each peer remembers something else of three that it knows nothing of, or of the one that it does.
        let mut node = Process::begin(Some(&kept), 10 * DAY + 1);
        let known = [
            (Some(&backup), 12),
            (Some(&later), 20),
            (None, 21),
            (Some(&later), 40),
            (Some(&last), 50),
            (Some(&backup), 51),
            (Some(&last), 200),
        ];
        for (life, day) in known {
            assert!(!node.is_shown(&says(life, day * DAY, None)), "{day}");
        }
        assert!(node.own.version() > 200 * DAY, "what it says now is what counts");
    }

    #[test]
    fn what_comes_from_several_at_once_is_one_answer() {
        let (mut node, [one, other]) = (Process::begin(None, 1000), [0; 2].map(|_| begin(None)));
        for version in [2000, 3000, 2500, 9 * DAY] {
            assert!(!node.is_shown_amid(&says(Some(&one), version, None)));
        }
        assert!(!node.is_shown_amid(&says(Some(&other), 400 * DAY, None)));
        node.answer();
        let said = node.own.version();
        assert!(said > 400 * DAY + LEAP_MS && !node.is_shown(&says(Some(&other), 401 * DAY, None)));
        // It is shown as the word is on its way that follows it as well.
        node.signers.on_shown(Above { version: Some(5), beside: Some(one.name()), is_stranger: true });
        let above = node.signers.take().unwrap();
        node.signers.on_shown(Above { version: Some(said - 1), ..above });
        assert!(!node.signers.on_said(above, said));
        node.signers.on_shown(Above { version: Some(said + 1), ..above });
        assert!(node.signers.on_said(above, said), "and this is not");
    }

    #[test]
    fn a_life_knows_what_it_said() {
        let mut node = Process::begin(None, 1000);
        let before = node.own.clone();
        node.say(None);
        assert!(!node.is_shown(&before), "it said so");
        let clone = says(Some(&node.life), node.own.version() + 1, None);
        assert!(node.is_shown(&clone));
        let version = node.own.version();
        let of_one_version = says(Some(&node.life), version, Some(&begin(None)));
        assert!(node.is_shown(&of_one_version));
    }

    #[test]
    fn who_takes_the_last_version_there_is_is_told_at_once_and_who_names_us_is_judged_by_that() {
        let mut node = Process::begin(None, 1000);
        let highest = says(None, (1 << 62) - 1, None);
        assert!(node.is_shown(&highest));
        let mut node = Process::begin(None, 1000);
        let twin = begin(None);
        for version in [2000, 5000, DAY] {
            let shown = says(Some(&twin), version, Some(&node.life));
            assert_eq!(author(&shown, &node.own, &node.life), Some(Author::Twin));
            assert!(!node.is_shown(&shown));
        }
    }

    #[test]
    fn a_few_words_are_said_at_once_and_then_one_a_turn() {
        let mut node = Process::begin(None, 1000);
        let mut said_at = Vec::new();
        let began = node.now;
        while said_at.len() < 10 {
            let pause = node.signers.pause(node.now);
            node.now += pause;
            if pause.is_zero() {
                node.signers.take();
                said_at.push((node.now - began).as_secs());
            }
        }
        let turns: Vec<u64> = (1..=6).map(|turn| turn * TURN.as_secs()).collect();
        assert_eq!(said_at, [[0; BURST as usize].as_slice(), &turns].concat());
        node.now += 10 * TURN;
        let at_once =
            std::iter::from_fn(|| node.signers.pause(node.now).is_zero().then(|| node.signers.take()));
        assert_eq!(at_once.count(), BURST as usize);
    }
}
