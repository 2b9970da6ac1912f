//! Files of a directory, and nothing outside it.
//!
//! The kernel keeps us inside: `openat2` with `RESOLVE_BENEATH` refuses whatever leads out of the directory, be it
//! `..`, an absolute path or a symbolic link, at every step and with no race. Before that a path is split, and each
//! segment decoded exactly once and looked at: what is refused there never reaches the kernel. Where a kernel has no
//! `openat2` (before 5.6, or a strict sandbox), each segment is opened with `O_NOFOLLOW`, and no link is followed.
//!
//! What it is not: directory listings, uploads, or a cache.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use percent_encoding::percent_decode_str;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

use super::conditional::ETag;
use super::server::accepts_coding;
use super::{Content, Request, Response};
use crate::offload;

/// Longer than any path that the kernel takes (`PATH_MAX`).
const PATH_BYTES_MAX: usize = 4096;

/// Serves the files below a directory.
///
/// `index.html` stands for its directory. Files whose names begin with a dot are not there, unless
/// [`Files::with_dot_files`] says otherwise.
///
/// # Examples
///
/// ```no_run
/// use reactor::http::{Files, Method, Server};
///
/// let files = Files::new("/srv/www").unwrap();
/// let server = Server::new().route(Method::GET, "/{*path}", move |request| files.serve(request, "path"));
/// ```
pub struct Files {
    root: Arc<OwnedFd>,
    dot_files: bool,
    precompressed: bool,
}

/// A coding in which a file may lie beside itself.
struct Coding {
    name: &'static str,
    /// All that clients call it.
    names: &'static [&'static str],
    /// What its file's name has more than the original's.
    ending: &'static str,
}

/// The smallest first, as a rule.
const CODINGS: [Coding; 3] = [
    Coding { name: "br", names: &["br"], ending: ".br" },
    Coding { name: "zstd", names: &["zstd"], ending: ".zst" },
    Coding { name: "gzip", names: &["gzip", "x-gzip"], ending: ".gz" },
];

enum Found {
    File(OwnedFd, Stat),
    Directory,
}

impl Files {
    /// Serves the files below `root`. It blocks for a moment: call it before serving.
    ///
    /// # Errors
    ///
    /// When `root` is no directory that can be opened.
    pub fn new(root: impl AsRef<Path>) -> io::Result<Files> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Arc::new(openat(CWD, root.as_ref(), flags, Mode::empty())?);
        Ok(Files { root, dot_files: false, precompressed: false })
    }

    /// Serves files and directories whose names begin with a dot, too.
    pub fn with_dot_files(mut self) -> Files {
        self.dot_files = true;
        self
    }

    /// Sends `page.html.br`, `page.html.zst` or `page.html.gz` in place of `page.html` to those who take that, where it lies
    /// beside it and is no older: so the best compression costs nothing as it is served. What is in there is not looked at.
    pub fn with_precompressed(mut self) -> Files {
        self.precompressed = true;
        self
    }

    /// Answers a request for the file that the route's `{*name}` names.
    ///
    /// # Suspends
    ///
    /// While another thread opens the file.
    pub fn serve(&self, request: &Request<'_>, name: &str) -> Response {
        self.find(request, request.raw_param(name).unwrap_or_default()).unwrap_or_else(Response::of_status)
    }

    fn find(&self, request: &Request<'_>, raw: &str) -> Result<Response, StatusCode> {
        let path = self.safe_path(raw).ok_or(StatusCode::NOT_FOUND)?;
        let is_directory = path.is_empty() || path.ends_with(b"/");
        let mut name = path;
        if is_directory {
            name.extend_from_slice(b"index.html");
        }
        let root = self.root.clone();
        let content_type = content_type(&name);
        let taken = |coding: &&Coding| self.precompressed && accepts_coding(request.headers(), coding.names);
        let codings: Vec<&'static Coding> = CODINGS.iter().filter(taken).collect();
        let mut coding = None;
        let found = offload(move || open_best(&root, name, &codings)).map(|(found, best)| {
            coding = best;
            found
        });
        match found {
            Ok(Found::File(file, stat)) => {
                let mut content = content(content_type, file, &stat, coding);
                if self.precompressed {
                    content = content.one_of_several(coding);
                }
                // The type is a guess by the name: a browser shall not guess another.
                let response = content.respond(request);
                Ok(response.header("X-Content-Type-Options", "nosniff"))
            }
            // Relative, so that no path can send the client to another host; with `./`, so that it is no scheme.
            Ok(Found::Directory) if !is_directory => {
                let last = raw.rsplit('/').next().unwrap_or_default();
                let location = format!("./{last}/");
                let response = Response::of_status(StatusCode::MOVED_PERMANENTLY);
                response.try_header("Location", location).map_err(|_| StatusCode::NOT_FOUND)
            }
            Ok(Found::Directory) => Err(StatusCode::NOT_FOUND),
            Err(Errno::ACCESS | Errno::PERM) => Err(StatusCode::FORBIDDEN),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Err(StatusCode::SERVICE_UNAVAILABLE),
            Err(_) => Err(StatusCode::NOT_FOUND),
        }
    }

    /// The path relative to the root; `None` if there is anything in it that no honest link has.
    fn safe_path(&self, raw: &str) -> Option<Vec<u8>> {
        let mut path = Vec::new();
        if raw.is_empty() {
            return Some(path);
        }
        let mut segments = raw.split('/').peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() && segments.peek().is_none() {
                // Ends with a slash.
                return Some(path);
            }
            let decoded: Vec<u8> = percent_decode_str(segment).collect();
            let is_dots = decoded == b"." || decoded == b"..";
            let is_hidden = decoded.first() == Some(&b'.') && !self.dot_files;
            // A backslash separates elsewhere, and somebody may take our answer there.
            let is_odd = decoded.iter().any(|byte| matches!(byte, 0..0x20 | 0x7f | b'/' | b'\\'));
            if decoded.is_empty() || is_dots || is_hidden || is_odd {
                return None;
            }
            path.extend_from_slice(&decoded);
            if segments.peek().is_some() {
                path.push(b'/');
            }
            if path.len() > PATH_BYTES_MAX {
                return None;
            }
        }
        Some(path)
    }
}

/// The first second of the year 10000.
const HTTP_SECONDS_END: u64 = 253_402_300_800;

/// How often a file is opened again where others rename at the same time.
const OPEN_RETRIES_MAX: usize = 16;

/// Opens what is below `root`, or the first of those that lie beside it in one of `codings` and are no older; blocks.
fn open_best(
    root: &OwnedFd,
    path: Vec<u8>,
    codings: &[&'static Coding],
) -> Result<(Found, Option<&'static str>), Errno> {
    let found = open_beneath(root, path.clone())?;
    if let Found::File(_, original) = &found {
        let changed = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        for coding in codings {
            let beside = [&path, coding.ending.as_bytes()].concat();
            if let Ok(Found::File(file, stat)) = open_beneath(root, beside)
                && changed(&stat) >= changed(original)
            {
                return Ok((Found::File(file, stat), Some(coding.name)));
            }
        }
    }
    Ok((found, None))
}

/// Opens what is below `root`; blocks.
fn open_beneath(root: &OwnedFd, path: Vec<u8>) -> Result<Found, Errno> {
    let path = CString::new(path).map_err(|_| Errno::NOENT)?;
    // NONBLOCK: opening a named pipe must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut opened = openat2(root, &*path, flags, Mode::empty(), resolve);
    for _ in 0..OPEN_RETRIES_MAX {
        // Something was renamed meanwhile, and the kernel does not know whether a `..` in a link led out of the root.
        if !matches!(opened, Err(Errno::AGAIN)) {
            break;
        }
        opened = openat2(root, &*path, flags, Mode::empty(), resolve);
    }
    let file = match opened {
        Err(Errno::NOSYS | Errno::PERM) => open_step_by_step(root, &path, flags)?,
        opened => opened?,
    };
    let stat = fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Found::File(file, stat)),
        FileType::Directory => Ok(Found::Directory),
        _ => Err(Errno::NOENT),
    }
}

fn open_step_by_step(root: &OwnedFd, path: &CString, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut segments = path.as_bytes().split(|byte| *byte == b'/').peekable();
    let mut directory: Option<OwnedFd> = None;
    while let Some(segment) = segments.next() {
        let at = directory.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        if segments.peek().is_none() {
            return openat(at, segment, flags | OFlags::NOFOLLOW, Mode::empty());
        }
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = Some(openat(at, segment, step, Mode::empty())?);
    }
    Err(Errno::NOENT)
}

fn content(content_type: &'static str, file: OwnedFd, stat: &Stat, coding: Option<&'static str>) -> Content {
    let (size, seconds, nanos) = (stat.st_size as u64, stat.st_mtime, stat.st_mtime_nsec);
    let content = Content::from_file(content_type, file, size);
    // A time that HTTP has no words for (before 1970, after 9999) is left out.
    let content = match u64::try_from(seconds) {
        Ok(seconds) if seconds < HTTP_SECONDS_END => {
            content.last_modified(UNIX_EPOCH + Duration::from_secs(seconds))
        }
        _ => content,
    };
    let compressible = content_type.starts_with("text/")
        || [
            "application/javascript",
            "application/json",
            "application/xml",
            "image/svg+xml",
            "application/wasm",
        ]
        .contains(&content_type);
    let content = content.compressible(compressible);
    // Other bytes have another name, even of the same size and time.
    let coding = coding.map(|coding| format!("-{coding}")).unwrap_or_default();
    match ETag::strong(format!("{size:x}-{seconds:x}-{nanos:x}{coding}")) {
        Some(etag) => content.etag(etag),
        None => content,
    }
}

fn content_type(name: &[u8]) -> &'static str {
    let extension =
        name.rsplit(|byte| *byte == b'.').next().and_then(|extension| std::str::from_utf8(extension).ok());
    match extension {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("txt") => "text/plain; charset=utf-8",
        Some(extension) if name.contains(&b'.') => {
            mime_guess::from_ext(extension).first_raw().unwrap_or("application/octet-stream")
        }
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_path_leads_out_of_the_directory() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        std::fs::write(root.join("a/file"), "f").unwrap();
        symlink(outside.path().join("secret"), root.join("absolute")).unwrap();
        symlink("../secret", root.join("upwards")).unwrap();
        symlink("..", root.join("parent")).unwrap();
        symlink("a/file", root.join("inside")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let files = Files::new(&root).unwrap();
        for bad in [
            "../secret",
            "a/../../secret",
            "..%2fsecret",
            "%2e%2e/secret",
            "%2e%2e%2fsecret",
            "a/..",
            ".",
            "./a/file",
            "a//file",
            "/etc/passwd",
            "//etc/passwd",
            "a/file%00",
            "a%5cfile",
            "..\\secret",
            ".hidden",
            "a/%2ehidden",
            "a%0afile",
            "/",
        ] {
            assert_eq!(files.safe_path(bad), None, "{bad}");
        }
        // Decoded once: what looks like dots after a second decoding is a name like any other.
        assert_eq!(files.safe_path("%252e%252e/secret").unwrap(), b"%2e%2e/secret");
        let open = |path: &str| open_beneath(&files.root, path.as_bytes().to_vec()).map(|_| ());
        assert_eq!(open("a/file"), Ok(()));
        assert_eq!(open("inside"), Ok(()), "a link that stays inside is followed");
        for bad in ["absolute", "upwards", "parent/secret", "../secret", "/etc/passwd", "loop"] {
            assert!(open(bad).is_err(), "{bad}");
            let path = CString::new(bad).unwrap();
            let stepped = open_step_by_step(&files.root, &path, OFlags::RDONLY | OFlags::CLOEXEC);
            // The step by step way is only reached with paths that hold no dots and begin with no slash.
            assert!(stepped.is_err() || bad.starts_with(['.', '/']), "{bad}");
        }
    }

    #[test]
    fn only_regular_files_are_served_and_pipes_are_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(CWD, root.path().join("pipe"), Mode::RUSR).unwrap();
        let files = Files::new(root.path()).unwrap();
        assert!(open_beneath(&files.root, b"pipe".to_vec()).is_err());
    }
}
