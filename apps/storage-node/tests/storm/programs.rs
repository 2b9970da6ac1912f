//! What the programs of a storm do: one change each, on one mount, through real system calls; what each made, knew and
//! replaced goes into the history.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};

use rustix::fs::FallocateFlags;
use rustix::time::{ClockId, clock_gettime};

use super::tree::{now, read, write_at};
use crate::common::history::Content;
use crate::{DIRECTORIES, LOG, NAME_COUNT, Open, Step, Storm};

impl Storm {
    /// A name, most often one of a few; else one that is there, conflict copies among them. Relative to the drive.
    fn pick(&self, at: usize, place: u64) -> String {
        let directory = DIRECTORIES[(place >> 8) as usize % DIRECTORIES.len()];
        let mut name = format!("n{}.txt", (place >> 16) % NAME_COUNT);
        if place.is_multiple_of(6) {
            let mut names: Vec<String> = fs::read_dir(self.mounts[at].drive.join(directory))
                .map(|entries| entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
                .unwrap_or_default();
            names.retain(|name| !name.starts_with(LOG));
            names.sort();
            if !names.is_empty() {
                name = names.swap_remove((place >> 16) as usize % names.len());
            }
        }
        if directory.is_empty() { name } else { format!("{directory}/{name}") }
    }

    pub(crate) fn change(&mut self, at: usize, step: &Step) -> io::Result<()> {
        let path = self.pick(at, step.places[0]);
        let other = self.pick(at, step.places[1]);
        match step.kind {
            0..14 => self.create(at, &path, step),
            14..22 => self.open(at, &path).map(drop),
            22..58 => self.edit(at, &path, step),
            58..65 => self.sync_file(at, step),
            65..72 => self.close(at, step),
            72..79 => self.save(at, &path, step),
            79..84 => self.rename(at, &other, &path),
            84..89 => self.unlink(at, &path),
            89..91 => {
                self.note(&format!("link {other} as {path}"));
                let drive = &self.mounts[at].drive;
                fs::hard_link(drive.join(&other), drive.join(&path))
            }
            91..94 => {
                let directory = DIRECTORIES[1 + step.places[0] as usize % 3];
                self.note(&format!("mkdir {directory}"));
                fs::create_dir(self.mounts[at].drive.join(directory))
            }
            94 => {
                let directory = DIRECTORIES[1 + step.places[0] as usize % 3];
                self.note(&format!("rmdir {directory}"));
                fs::remove_dir(self.mounts[at].drive.join(directory))
            }
            95..99 => self.append(at, step),
            _ => {
                self.note(&format!("chmod {path}"));
                let mode = 0o600 + step.size as u32 % 0o100;
                fs::set_permissions(self.mounts[at].drive.join(&path), Permissions::from_mode(mode))
            }
        }
    }

    /// Bytes that no other file begins with, and some more.
    fn fresh(&mut self, step: &Step) -> Content {
        let more = if step.size.is_multiple_of(16) { 100_000 } else { 3_000 };
        let mut content = self.history.token().to_vec();
        content.resize(17 + (step.offset % more) as usize, 1);
        content
    }

    fn create(&mut self, at: usize, path: &str, step: &Step) -> io::Result<()> {
        self.note(&format!("create {path}"));
        let place = self.mounts[at].drive.join(path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&place)?;
        let content = self.fresh(step);
        file.write_all_at(&content, 0)?;
        // What another mount made there meanwhile may be the file now, with this in it.
        let made = read(&file)?;
        let what = self.trace.last().unwrap().clone();
        assert!(made == content, "{}", self.failed("a new file shows something else than what was written"));
        self.history.made(at, made.clone(), &what);
        self.knows(&made, path);
        self.open.push(Open { mount: at, path: path.into(), file, made: vec![made] });
        Ok(())
    }

    fn knows(&mut self, content: &Content, path: &str) {
        self.paths.entry(content.clone()).or_default().push(path.to_owned());
    }

    fn open(&mut self, at: usize, path: &str) -> io::Result<usize> {
        self.note(&format!("open {path}"));
        let place = self.mounts[at].drive.join(path);
        let file = OpenOptions::new().read(true).write(true).open(&place)?;
        self.open.push(Open { mount: at, path: path.into(), file, made: Vec::new() });
        Ok(self.open.len() - 1)
    }

    /// One of the open files of a mount.
    fn choose(&self, at: usize, step: &Step) -> Option<usize> {
        let of_it: Vec<usize> = (0..self.open.len()).filter(|index| self.open[*index].mount == at).collect();
        of_it.get(step.handle as usize % of_it.len().max(1)).copied()
    }

    fn edit(&mut self, at: usize, path: &str, step: &Step) -> io::Result<()> {
        let index = match self.choose(at, step) {
            Some(index) => index,
            None => self.open(at, path)?,
        };
        let size = read(&self.open[index].file)?.len() as u64;
        let token = self.history.token();
        let offset = if step.places[2].is_multiple_of(4) { 0 } else { step.offset % (size + 2_000) };
        self.apply(
            index,
            &format!("write at {offset}"),
            |file| file.write_all_at(&token, offset),
            |old| write_at(old, offset as usize, &token),
        )?;
        // What is cut or punched begins with a token of its own, so that it is no version that was there before.
        let size = 17 + step.size % (size + 100);
        match step.places[2] % 16 {
            0 => self.apply(
                index,
                &format!("cut to {size}"),
                |file| file.set_len(size),
                |old| {
                    let mut new = old.clone();
                    new.resize(size as usize, 0);
                    new
                },
            ),
            4 => {
                let (start, end) = (size, size + 1 + step.offset % 50_000);
                let punch = |file: &File| {
                    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    Ok(rustix::fs::fallocate(file, how, start, end - start)?)
                };
                self.apply(index, &format!("punch {start}..{end}"), punch, |old| {
                    let mut new = old.clone();
                    let end = new.len().min(end as usize);
                    if (start as usize) < end {
                        new[start as usize..end].fill(0);
                    }
                    new
                })
            }
            _ => Ok(()),
        }
    }

    /// Changes an open file, and notes what that made of it.
    fn apply(
        &mut self,
        index: usize,
        words: &str,
        change: impl Fn(&File) -> io::Result<()>,
        apply: impl Fn(&Content) -> Content,
    ) -> io::Result<()> {
        let (at, path) = (self.open[index].mount, self.open[index].path.display().to_string());
        self.note(&format!("{words} of {path}"));
        let file = &self.open[index].file;
        let saw = read(file)?;
        change(file)?;
        let new = read(file)?;
        let is_named = now(file)?.0 > 0;
        let what = format!("{} ({words})", self.trace.last().unwrap());
        if let Err(wrong) = self.history.changed(at, &saw, &new, &what, apply) {
            panic!("{}", self.failed(&wrong));
        }
        self.knows(&new, &path);
        if is_named {
            self.open[index].made.push(new);
        } else {
            // Another's removal came first: what is written to a file without a name goes with it.
            self.history.removed(new);
        }
        Ok(())
    }

    fn sync_file(&mut self, at: usize, step: &Step) -> io::Result<()> {
        let Some(index) = self.choose(at, step) else { return Ok(()) };
        self.note(&format!("fsync {}", self.open[index].path.display()));
        let open = &mut self.open[index];
        open.file.sync_all()?;
        self.history.acknowledged(&std::mem::take(&mut open.made));
        Ok(())
    }

    fn close(&mut self, at: usize, step: &Step) -> io::Result<()> {
        let Some(index) = self.choose(at, step) else { return Ok(()) };
        self.note(&format!("close {}", self.open[index].path.display()));
        let open = self.open.swap_remove(index);
        // The node is never away: it succeeds.
        drop(open.file);
        self.history.acknowledged(&open.made);
        Ok(())
    }

    /// As editors do.
    fn save(&mut self, at: usize, path: &str, step: &Step) -> io::Result<()> {
        self.note("save");
        let temporary = format!("saving-{}.txt", step.size % 4);
        self.create(at, &temporary, step)?;
        let open = self.open.pop().unwrap();
        self.history.acknowledged(&open.made);
        drop(open);
        self.rename(at, &temporary, path)
    }

    fn rename(&mut self, at: usize, from: &str, to: &str) -> io::Result<()> {
        self.note(&format!("rename {from} to {to}"));
        let drive = self.mounts[at].drive.clone();
        if let Ok(content) = fs::read(drive.join(from)) {
            self.knows(&content, to);
        }
        self.superseding(at, to, || fs::rename(drive.join(from), drive.join(to)))
    }

    fn unlink(&mut self, at: usize, path: &str) -> io::Result<()> {
        self.note(&format!("unlink {path}"));
        let place = self.mounts[at].drive.join(path);
        self.superseding(at, path, || fs::remove_file(&place))
    }

    /// Removes or replaces what `path` names. What that was shows the file that is open meanwhile: it has no name any
    /// more, since this step.
    fn superseding(
        &mut self,
        at: usize,
        path: &str,
        remove: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let target = File::open(self.mounts[at].drive.join(path));
        let is_file = |file: &File| file.metadata().is_ok_and(|metadata| metadata.is_file());
        let target = target.ok().filter(is_file);
        let start = clock_gettime(ClockId::RealtimeCoarse);
        remove()?;
        let Some(target) = target else { return Ok(()) };
        let (names, changed) = now(&target)?;
        if names == 0 && changed >= (start.tv_sec, start.tv_nsec) {
            let content = read(&target)?;
            self.history.removed(content);
        } else {
            // One of several names; or a merge put another mount's file under that name just before.
            self.note("perhaps of something else");
            let paths = &self.paths;
            let has_path = |known: &Vec<String>| known.iter().any(|known| known == path);
            self.history.perhaps_removed(|content| paths.get(content).is_some_and(has_path));
            let content = read(&target)?;
            self.history.perhaps_removed(|other| *other == content);
        }
        Ok(())
    }

    fn append(&mut self, at: usize, step: &Step) -> io::Result<()> {
        self.note("append");
        let mount = &mut self.mounts[at];
        let place = mount.drive.join(LOG);
        let log = match &mut mount.log {
            Some(log) => log,
            none => none.insert(OpenOptions::new().append(true).create(true).open(place)?),
        };
        let line = format!("{at} {} {}\n", mount.lines.len(), "x".repeat(step.size as usize % 900));
        log.write_all(line.as_bytes())?;
        mount.lines.push(line);
        if step.offset.is_multiple_of(4) {
            log.sync_all()?;
            mount.synced_lines = mount.lines.len();
        }
        Ok(())
    }
}
