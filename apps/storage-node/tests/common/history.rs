//! What programs on several mounts did to the contents of files, and what must have become of them.
//!
//! Every state of a file's content that a program made is a *version*, and no two are the same. A program that changes or
//! removes a version *supersedes* it: that one may go. However the mounts' histories are merged, in the end what was
//! acknowledged and not superseded is there, under some name; what is there was made by somebody as it is; and what was
//! superseded is not there. What a killed mount had not stored may be there or not, and may have superseded or not; and a file that it
//! had made is there, perhaps with nothing in it: of its name a program was told, of its content it was not before a close.
//!
//! Pure: the story tells it what its programs saw, did and saw then.

use std::collections::{HashMap, HashSet};

/// All bytes of a file.
pub type Content = Vec<u8>;

/// How a version came about.
struct Made {
    /// The mount.
    by: usize,
    /// What the program calls it in a failed story.
    what: String,
    /// A close or a sync that came after it succeeded.
    is_acknowledged: bool,
    /// Its mount was killed before that.
    is_uncertain: bool,
}

/// See the file's header.
#[derive(Default)]
pub struct History {
    made: HashMap<Content, Made>,
    /// Which versions programs made of each.
    replaced: HashMap<Content, Vec<Content>>,
    /// Removed, by whoever saw it.
    removed: HashSet<Content>,
    /// Perhaps removed or replaced: another mount's version came in under a program's hands.
    perhaps_over: HashSet<Content>,
    count: u64,
}

impl History {
    /// Sixteen bytes that no other change writes.
    pub fn token(&mut self) -> [u8; 16] {
        self.count += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.count.to_be_bytes());
        bytes[8..]
            .copy_from_slice(&(self.count ^ u64::MAX).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        bytes
    }

    /// Notes a version that mount `by` made from nothing.
    pub fn made(&mut self, by: usize, content: Content, what: &str) {
        let made = Made { by, what: what.to_owned(), is_acknowledged: false, is_uncertain: false };
        self.made.entry(content).or_insert(made);
    }

    /// Notes a change of what `saw` shows to what `new` shows: `apply` says what it makes of any content.
    ///
    /// # Errors
    /// If it makes `new` of nothing that was ever there.
    pub fn changed(
        &mut self,
        by: usize,
        saw: &Content,
        new: &Content,
        what: &str,
        apply: impl Fn(&Content) -> Content,
    ) -> Result<(), String> {
        let meant: Vec<Content> =
            self.made.keys().filter(|made| *made != saw && apply(made) == *new).cloned().collect();
        if apply(saw) == *new {
            if saw != new {
                self.replaced.entry(saw.clone()).or_default().push(new.clone());
            }
        } else if meant.is_empty() {
            return Err(format!("{what}: it made what nobody could have meant"));
        }
        // Another mount's version may have come in between: then it was one of those.
        self.perhaps_over.extend(meant);
        self.made(by, new.clone(), what);
        Ok(())
    }

    /// Notes that somebody removed what he saw.
    pub fn removed(&mut self, content: Content) {
        self.removed.insert(content);
    }

    /// Notes that somebody removed one of these, unseen.
    pub fn perhaps_removed(&mut self, are_meant: impl Fn(&Content) -> bool) {
        self.perhaps_over.extend(self.made.keys().filter(|content| are_meant(content)).cloned());
    }

    /// A close or sync of mount `by` succeeded after it had made these.
    pub fn acknowledged<'a>(&mut self, contents: impl IntoIterator<Item = &'a Content>) {
        for content in contents {
            if let Some(made) = self.made.get_mut(content) {
                made.is_acknowledged = true;
            }
        }
    }

    /// A sync of all that mount `by` made succeeded.
    pub fn all_acknowledged(&mut self, by: usize) {
        let all = self.made.values_mut().filter(|made| made.by == by && !made.is_uncertain);
        all.for_each(|made| made.is_acknowledged = true);
    }

    /// Mount `by` was killed.
    pub fn killed(&mut self, by: usize) {
        let lost = self.made.values_mut().filter(|made| made.by == by && !made.is_acknowledged);
        lost.for_each(|made| made.is_uncertain = true);
    }

    /// Whether what became of a version was removed in the end: who renames the file elsewhere keeps it, and what it was
    /// there.
    fn ended_removed(&self, content: &Content) -> bool {
        let mut todo = vec![content];
        let mut seen = HashSet::new();
        while let Some(at) = todo.pop() {
            if self.removed.contains(at) || self.perhaps_over.contains(at) || self.made[at].is_uncertain {
                return true;
            }
            if seen.insert(at) {
                todo.extend(self.replaced.get(at).into_iter().flatten());
            }
        }
        false
    }

    /// Whether a version, or what a killed mount made of it, is accounted for.
    fn is_accounted_for(&self, content: &Content, there: &HashSet<&Content>) -> bool {
        there.contains(content)
            || self.removed.contains(content)
            || self.perhaps_over.contains(content)
            || (self.replaced.get(content).into_iter().flatten())
                .any(|next| self.made[next].is_acknowledged || self.is_accounted_for(next, there))
    }

    /// Checks what is there in the end.
    ///
    /// # Errors
    /// All that is wrong, in words.
    pub fn check<'a>(
        &self,
        found: impl IntoIterator<Item = (&'a String, &'a Content)>,
    ) -> Result<(), String> {
        let found: Vec<(&String, &Content)> = found.into_iter().collect();
        let there: HashSet<&Content> = found.iter().map(|(_, content)| *content).collect();
        let mut wrong = Vec::new();
        let mut unclosed = self.made.values().filter(|made| made.is_uncertain);
        for (path, content) in &found {
            match self.made.get(*content) {
                None if content.is_empty() && unclosed.next().is_some() => {}
                None => wrong.push(format!("nobody wrote what is in {path}, {}", shown(content))),
                Some(made) if self.replaced.contains_key(*content) && !self.ended_removed(content) => {
                    wrong.push(format!("what is in {path} was replaced; it is from {}", made.what));
                }
                Some(_) => {}
            }
        }
        for (content, made) in self.made.iter().filter(|(_, made)| made.is_acknowledged) {
            if !self.is_accounted_for(content, &there) {
                wrong.push(format!("lost: {}, from {}", shown(content), made.what));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// How many versions there were, and of how many nothing is certain.
    pub fn summary(&self) -> String {
        let uncertain = self.made.values().filter(|made| made.is_uncertain).count();
        format!(
            "{} versions, {} not stored by a killed mount, {} perhaps replaced or removed by who had not seen them",
            self.made.len(),
            uncertain,
            self.perhaps_over.len()
        )
    }
}

/// A content, in a failed story.
fn shown(content: &Content) -> String {
    let number = content.first_chunk().map_or(0, |start| u64::from_be_bytes(*start));
    format!("{} bytes that begin with token {number}", content.len())
}
