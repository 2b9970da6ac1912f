//! What of the names and contents a disk keeps: syncs, crashes, and what nobody can reach any more.

use std::collections::{BTreeMap, BTreeSet};

use super::{Damage, Disk, Fate, NameChange, Node, ROOT};

impl Disk {
    pub(super) fn sync_names(&mut self, directory: u64) {
        let touches = |change: &NameChange| change.iter().any(|(at, _, _)| *at == directory);
        let count = self.journal.iter().rposition(touches).map_or(0, |last| last + 1);
        self.keep_names(count);
    }

    /// Brings the first changes of the journal to the disk.
    fn keep_names(&mut self, count: usize) {
        for (directory, name, stands_for) in self.journal.drain(..count).flatten() {
            let node = self.inodes.get_mut(&directory).map(|inode| &mut inode.node);
            if let Some(Node::Directory { durable, .. }) = node {
                match stands_for {
                    Some(number) => durable.insert(name, number),
                    None => durable.remove(&name),
                };
            }
        }
        self.collect();
    }

    /// Forgets what nobody can reach: not by a name, now or after a crash, nor through an open file.
    pub(super) fn collect(&mut self) {
        let mut used: BTreeSet<u64> = [ROOT].into();
        for change in &self.journal {
            used.extend(change.iter().filter_map(|(_, _, number)| *number));
        }
        for (number, inode) in &self.inodes {
            if inode.open_count > 0 || inode.link_count > 0 {
                used.insert(*number);
            }
            if let Node::Directory { durable, .. } = &inode.node {
                used.extend(durable.values());
            }
        }
        let mut freed = 0;
        self.inodes.retain(|number, inode| {
            let keep = used.contains(number);
            if let (false, Node::File(content)) = (keep, &inode.node) {
                freed += content.len() as u64;
            }
            keep
        });
        self.used_bytes = self.used_bytes.saturating_sub(freed);
    }

    /// The power goes. `keep_names` is told how many changes of names are not synced, and says how many the disk
    /// has all the same; `fate`, for each unsynced write, its sectors, and says what becomes of it.
    pub(crate) fn crash(
        &mut self,
        keep_names: impl FnOnce(usize) -> usize,
        mut fate: impl FnMut(usize) -> Fate,
    ) -> Damage {
        let mut damage = Damage::default();
        let kept = keep_names(self.journal.len()).min(self.journal.len());
        damage.lost_names = self.journal.len() - kept;
        self.keep_names(kept);
        self.journal.clear();
        for inode in self.inodes.values_mut() {
            inode.open_count = 0;
            inode.link_count = 0;
            match &mut inode.node {
                Node::File(content) => {
                    let fates: Vec<Fate> = (0..content.unsynced_count())
                        .map(|index| fate(content.unsynced_sectors(index)))
                        .collect();
                    let count = |which: fn(&Fate) -> bool| fates.iter().filter(|fate| which(fate)).count();
                    damage.lost_writes += count(|fate| *fate == Fate::Lost);
                    damage.torn_writes += count(|fate| matches!(fate, Fate::Torn(_)));
                    content.crash(fates);
                }
                Node::Directory { live, durable } => live.clone_from(durable),
                Node::Symlink(_) => {}
            }
        }
        self.count_anew();
        damage
    }

    /// Counts names and bytes anew, and forgets what no name reaches.
    fn count_anew(&mut self) {
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        let mut reached = vec![ROOT];
        while let Some(number) = reached.pop() {
            let Ok(names) = self.names(number) else { continue };
            for child in names.values() {
                let count = counts.entry(*child).or_default();
                *count += 1;
                if *count == 1 {
                    reached.push(*child);
                }
            }
        }
        self.inodes.retain(|number, _| *number == ROOT || counts.contains_key(number));
        self.used_bytes = 0;
        for (number, inode) in &mut self.inodes {
            inode.link_count = counts.get(number).copied().unwrap_or(0);
            if let Node::File(content) = &inode.node {
                self.used_bytes += content.len() as u64;
            }
        }
    }
}
