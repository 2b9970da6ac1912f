//! The work itself: what is done in a mounted directory, one function a row.
//!
//! A row checks what it did outside the measured time: a drive that loses files is not fast. What is written is
//! different in every page and every run, so that nobody gains by noticing that it was there before.

use super::inputs::{Inputs, Tally, count, git_command, run};
use super::mounted::Mounted;
use crate::process::own_cpu;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PAGE_SIZE_BYTES: usize = 4096;
/// What sequential reads and writes move at once, as `cp` and `dd bs=1M` do.
const STEP_SIZE_BYTES: usize = 1 << 20;
const FILES_PER_DIRECTORY: u64 = 100;
/// One pass over the kernel's cache is too short to time.
const WARM_PASSES: usize = 4;
const SMALL_FILE_SIZE_BYTES: usize = 1024;
/// Of the files whose first pages are read: no read-ahead of one brings the next.
const COLD_FILE_SIZE_BYTES: usize = 256 << 10;

/// How much of each work is done.
#[derive(Clone, Copy, Debug)]
pub struct Amounts {
    /// Small files created and written, 1 KiB each, 100 to a directory.
    pub creates: u64,
    /// Bytes of the large file.
    pub large_bytes: u64,
    /// Reads of 4 KiB at random places of the large file.
    pub random_reads: u64,
    /// Files of 256 KiB of which the first byte is read.
    pub cold_files: u64,
    /// Transactions of one row each.
    pub commits: u64,
}

/// One kind of work, in the order in which it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Row {
    /// Many small files are created and written.
    Creates,
    /// `tar xf` of a source tree.
    Untar,
    /// `git clone` of a local repository.
    GitClone,
    /// `sqlite3` inserts rows, each in a transaction of its own.
    Sqlite,
    /// A large file is written from begin to end, then fsync.
    Write,
    /// The large file is read after a remount.
    RemountedRead,
    /// The large file is read again and again.
    WarmRead,
    /// 4 KiB at random places of the large file are read after a remount.
    RandomRead,
    /// Files are opened and their first byte is read after a remount, in no order: what a file manager's previews do.
    FirstByte,
}

impl Row {
    /// Returns the name that stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Row::Creates => "creates",
            Row::Untar => "untar",
            Row::GitClone => "git clone",
            Row::Sqlite => "sqlite commits",
            Row::Write => "write+fsync",
            Row::RemountedRead => "remounted read",
            Row::WarmRead => "warm read",
            Row::RandomRead => "random 4 KiB reads",
            Row::FirstByte => "cold first bytes",
        }
    }

    /// Returns the unit of its rate; more is better in every row.
    pub fn unit(self) -> &'static str {
        match self {
            Row::Creates | Row::Untar | Row::GitClone | Row::FirstByte => "files/s",
            Row::Sqlite => "commits/s",
            Row::Write | Row::RemountedRead | Row::WarmRead => "MB/s",
            Row::RandomRead => "reads/s",
        }
    }
}

/// What one row took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    /// In the row's unit.
    pub rate: f64,
    /// Wall time.
    pub seconds: f64,
    /// Processor time of this program and of those it ran.
    pub client_cpu_seconds: f64,
    /// Processor time of the file system's daemons.
    pub drive_cpu_seconds: f64,
}

/// Does `row` in `mounted` and measures it.
///
/// # Errors
/// Fails when the file system does, or has lost something.
pub fn measure(row: Row, mounted: &mut Mounted, inputs: &Inputs, amounts: &Amounts) -> io::Result<Measured> {
    let root = mounted.root();
    let large = root.join("large");
    let cold = root.join("cold");
    match row {
        Row::FirstByte => write_cold(&cold, amounts.cold_files)?,
        Row::RemountedRead | Row::WarmRead | Row::RandomRead if !large.exists() => {
            write_large(&large, amounts.large_bytes)?;
        }
        _ => {}
    }
    if matches!(row, Row::RemountedRead | Row::RandomRead | Row::FirstByte) {
        mounted.remount()?;
    }
    if row == Row::WarmRead {
        read_large(&large, amounts.large_bytes)?;
    }
    settle(&root)?;
    let megabytes = amounts.large_bytes as f64 / 1e6;
    let (client_before, drive_before) = (own_cpu(), mounted.cpu());
    let begin = Instant::now();
    let done = match row {
        Row::Creates => create_small(&root.join("small"), amounts.creates).map(|()| amounts.creates as f64),
        Row::Untar => untar(&root.join("untar"), inputs).map(|()| inputs.archived.files as f64),
        Row::GitClone => clone(&root.join("clone"), inputs).map(|()| inputs.cloned.files as f64),
        Row::Sqlite => commit(&root.join("database"), amounts.commits).map(|()| amounts.commits as f64),
        Row::Write => write_large(&large, amounts.large_bytes).map(|()| megabytes),
        Row::RemountedRead => read_large(&large, amounts.large_bytes).map(|()| megabytes),
        Row::WarmRead => (0..WARM_PASSES)
            .try_for_each(|_| read_large(&large, amounts.large_bytes))
            .map(|()| megabytes * WARM_PASSES as f64),
        Row::RandomRead => read_randomly(&large, amounts.large_bytes, amounts.random_reads)
            .map(|()| amounts.random_reads as f64),
        Row::FirstByte => read_first_bytes(&cold, amounts.cold_files).map(|()| amounts.cold_files as f64),
    }?;
    let seconds = begin.elapsed().as_secs_f64();
    let since = |now: Duration, before| now.saturating_sub(before).as_secs_f64();
    let measured = Measured {
        rate: done / seconds,
        seconds,
        client_cpu_seconds: since(own_cpu(), client_before),
        drive_cpu_seconds: since(mounted.cpu(), drive_before),
    };
    check(row, &root, inputs, amounts)?;
    Ok(measured)
}

/// Has the file system write what it still owes, so that no row pays for the one before it.
fn settle(root: &Path) -> io::Result<()> {
    let directory = File::open(root)?;
    rustix::fs::syncfs(&directory)?;
    // FUSE does not pass a syncfs on; some refuse to fsync a directory, and then have nothing more to offer.
    let _ = directory.sync_all();
    Ok(())
}

/// Is what was written there?
fn check(row: Row, root: &Path, inputs: &Inputs, amounts: &Amounts) -> io::Result<()> {
    let small = Tally { files: amounts.creates, bytes: amounts.creates * SMALL_FILE_SIZE_BYTES as u64 };
    let (found, expected) = match row {
        Row::Creates => (count(&root.join("small"))?, small),
        Row::Untar => (count(&root.join("untar"))?, inputs.archived),
        Row::GitClone => {
            let git = root.join("clone/.git");
            let (all, git) = (count(&root.join("clone"))?, count(&git)?);
            (Tally { files: all.files - git.files, bytes: all.bytes - git.bytes }, inputs.cloned)
        }
        // The others compare what they read.
        _ => return Ok(()),
    };
    match found == expected {
        true => Ok(()),
        false => Err(io::Error::other(format!("{} lost something: {found:?} of {expected:?}", row.name()))),
    }
}

fn create_small(directory: &Path, files: u64) -> io::Result<()> {
    let mut content = [b'.'; SMALL_FILE_SIZE_BYTES];
    for number in 0..files {
        let directory = directory.join(format!("{:03}", number / FILES_PER_DIRECTORY));
        if number % FILES_PER_DIRECTORY == 0 {
            fs::create_dir_all(&directory)?;
        }
        content[..8].copy_from_slice(&number.to_le_bytes());
        File::create_new(directory.join(format!("file-{number:05}")))?.write_all(&content)?;
    }
    Ok(())
}

fn untar(directory: &Path, inputs: &Inputs) -> io::Result<()> {
    fs::create_dir(directory)?;
    run(Command::new("tar").arg("xf").arg(&inputs.archive).arg("-C").arg(directory))
}

fn clone(directory: &Path, inputs: &Inputs) -> io::Result<()> {
    // By URL, so that git moves a pack as it would over a network, instead of linking the objects.
    let url = format!("file://{}", inputs.repository.display());
    run(git_command().args(["clone", "-q", &url]).arg(directory))
}

fn commit(database: &Path, commits: u64) -> io::Result<()> {
    let mut script = String::from("create table pairs (key integer primary key, value text);\n");
    for key in 1..commits {
        script.push_str(&format!("insert into pairs values ({key}, hex(randomblob(50)));\n"));
    }
    script.push_str("select count(*) from pairs;\n");
    let mut command = Command::new("sqlite3");
    // What a user has in ~/.sqliterc is none of our business.
    command.args(["-batch", "-init", "/dev/null"]).arg(database);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // It prints one line, at the end: nothing can fill a pipe meanwhile.
    child.stdin.take().expect("it is piped").write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    match String::from_utf8_lossy(&output.stdout).trim() == (commits - 1).to_string() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "sqlite3 failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

/// Bytes that do not compress; each page of a file is stamped with its number, and is like no other.
fn noise() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = (0..STEP_SIZE_BYTES / 8).flat_map(|_| {
        // Xorshift64: Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

fn stamp(page: u64) -> [u8; 8] {
    page.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()
}

fn write_large(path: &Path, bytes: u64) -> io::Result<()> {
    let mut step = noise();
    let mut file = File::create(path)?;
    let pages_per_step = (STEP_SIZE_BYTES / PAGE_SIZE_BYTES) as u64;
    for first_page in (0..bytes / PAGE_SIZE_BYTES as u64).step_by(pages_per_step as usize) {
        for (page, content) in (first_page..).zip(step.chunks_exact_mut(PAGE_SIZE_BYTES)) {
            content[..8].copy_from_slice(&stamp(page));
        }
        file.write_all(&step)?;
    }
    file.sync_all()
}

fn read_large(path: &Path, bytes: u64) -> io::Result<()> {
    let mut step = vec![0; STEP_SIZE_BYTES];
    let mut file = File::open(path)?;
    let mut page = 0;
    for _ in 0..bytes / STEP_SIZE_BYTES as u64 {
        file.read_exact(&mut step)?;
        for content in step.chunks_exact(PAGE_SIZE_BYTES) {
            check_page(content, page)?;
            page += 1;
        }
    }
    Ok(())
}

fn read_randomly(path: &Path, bytes: u64, reads: u64) -> io::Result<()> {
    let file = File::open(path)?;
    let mut content = [0; PAGE_SIZE_BYTES];
    let pages = bytes / PAGE_SIZE_BYTES as u64;
    for number in 0..reads {
        // The same places for everyone; their order has no pattern that a read-ahead could learn.
        let page = u64::from_le_bytes(stamp(number + 1)) % pages;
        file.read_exact_at(&mut content, page * PAGE_SIZE_BYTES as u64)?;
        check_page(&content, page)?;
    }
    Ok(())
}

fn write_cold(directory: &Path, files: u64) -> io::Result<()> {
    let mut content = noise();
    content.truncate(COLD_FILE_SIZE_BYTES);
    fs::create_dir(directory)?;
    for number in 0..files {
        content[..8].copy_from_slice(&stamp(number + 1));
        fs::write(directory.join(number.to_string()), &content)?;
    }
    Ok(())
}

fn read_first_bytes(directory: &Path, files: u64) -> io::Result<()> {
    let mut order: Vec<u64> = (0..files).collect();
    order.sort_by_key(|number| stamp(*number));
    for number in order {
        let mut byte = [0];
        File::open(directory.join(number.to_string()))?.read_exact_at(&mut byte, 0)?;
        if byte[0] != stamp(number + 1)[0] {
            return Err(io::Error::other(format!("the first byte of file {number} came back wrong")));
        }
    }
    Ok(())
}

fn check_page(content: &[u8], page: u64) -> io::Result<()> {
    match content[..8] == stamp(page) {
        true => Ok(()),
        false => Err(io::Error::other(format!("page {page} of the large file came back wrong"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_reads_back_and_a_flipped_stamp_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large");
        let bytes = 2 * STEP_SIZE_BYTES as u64;
        write_large(&path, bytes).unwrap();
        read_large(&path, bytes).unwrap();
        read_randomly(&path, bytes, 50).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"x", 5 * PAGE_SIZE_BYTES as u64).unwrap();
        assert!(read_large(&path, bytes).unwrap_err().to_string().contains("page 5"));
    }

    #[test]
    fn small_files_are_spread_over_directories() {
        let directory = tempfile::tempdir().unwrap();
        create_small(directory.path(), 250).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        assert_eq!(count(directory.path()).unwrap(), Tally { files: 250, bytes: 250 * 1024 });
    }
}
