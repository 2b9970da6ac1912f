//! Which sessions have used a journal's directory: a file beside the journal.
//!
//! One process at a time uses a directory, so whoever has it knows that the sessions before it are over, and need not wait
//! until they have been silent for long enough. A copy of the directory knows nothing of the sort of the one that it was
//! made of: so the note names the directory's inode too. It is a hint: without it, the next start waits.

use std::path::PathBuf;

use reactor::fs;

use super::Journal;

/// The file's name.
const NOTE: &str = "sessions";

/// As many starts in a row as may be killed before they are announced, without the last of them having to wait.
const SESSIONS_MAX: usize = 64;

impl Journal {
    /// Returns the sessions that may be in the tree and are over, oldest first.
    ///
    /// # Suspends
    ///
    /// While the note is read.
    pub(crate) fn earlier_sessions(&self) -> Vec<[u8; 8]> {
        let Ok(noted) = fs::read(self.note(), 8 * (SESSIONS_MAX + 1)) else { return Vec::new() };
        let Some((place, sessions)) = noted.split_first_chunk::<8>() else { return Vec::new() };
        if self.place() != Some(*place) {
            return Vec::new();
        }
        sessions.as_chunks::<8>().0.to_vec()
    }

    /// Notes the sessions that may be in the tree, oldest first, the one that uses the directory among them.
    ///
    /// # Suspends
    ///
    /// While the note is written.
    pub(crate) fn note_sessions(&self, sessions: &[[u8; 8]]) {
        let Some(place) = self.place() else { return };
        self.remove_half_written();
        let newest = &sessions[sessions.len().saturating_sub(SESSIONS_MAX)..];
        let content = [&[place], newest].concat().concat();
        if let Err(error) = fs::write_atomically(self.note(), content, 0o600) {
            tracing::debug!(%error, "the session is not noted: the next start may have to wait");
        }
    }

    fn note(&self) -> PathBuf {
        self.directory.join(NOTE)
    }

    /// Removes what processes left that were killed while they wrote the note: nobody else writes here.
    fn remove_half_written(&self) {
        let half = format!(".{NOTE}.");
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if entry.name.to_string_lossy().starts_with(&half)
                && let Err(error) = fs::remove_file(self.directory.join(&entry.name))
            {
                tracing::debug!(%error, "a half-written note stays");
            }
        }
    }

    /// What no copy of the directory has.
    fn place(&self) -> Option<[u8; 8]> {
        fs::metadata(&self.directory).ok().map(|directory| directory.inode.to_le_bytes())
    }
}
