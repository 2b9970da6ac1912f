//! A form, read part by part out of any reader.

use std::io::{self, BufRead, ErrorKind, Read};
use std::path::Path;

use super::{MultipartDecoder, MultipartError, MultipartLimits, MultipartPiece, PartHead};
use crate::fs::{File, Temporary};
use crate::http::input::Source;
use crate::http::server::RequestBody;
use crate::http::{Headers, Input, Refusal, Request};

/// The mode of a file that is saved, less the process's umask: as of any program's.
const FILE_MODE: u32 = 0o666;

/// A form as it comes; [`Request::multipart`] begins one.
pub struct Multipart<R> {
    reader: R,
    input: Input,
    decoder: MultipartDecoder,
}

/// One part of a form: its head, and with `Read` or `BufRead` its data.
///
/// What is not read of it is passed over when the next one is asked for.
///
/// # Errors
///
/// A [`MultipartError`] or [`super::super::BodyError`] inside, for which a handler that returns it answers 400, 408, 413
/// or 431.
///
/// # Suspends
///
/// `read` and `fill_buf` do, until data comes.
pub struct FormPart<'m, R> {
    head: PartHead,
    form: &'m mut Multipart<R>,
    is_over: bool,
}

impl<'a> Request<'a> {
    /// The body, which is a form with files (`multipart/form-data`), to be read part by part as it comes.
    ///
    /// All of it together is within the server's [`super::super::Limits::body`], 64 MiB by default.
    ///
    /// # Errors
    ///
    /// 415 when it is of another type, 400 when that names no boundary.
    ///
    /// # Suspends
    ///
    /// Never; reading the parts does.
    ///
    /// # Examples
    ///
    /// ```
    /// use reactor::http::{Method, MultipartLimits, Refusal, Request, Response, Server};
    ///
    /// fn upload(request: &mut Request<'_>) -> Result<Response, Refusal> {
    ///     let mut form = request.multipart(MultipartLimits::default())?;
    ///     let mut title = String::new();
    ///     while let Some(part) = form.next_part()? {
    ///         match part.name() {
    ///             "title" => title = part.text(1_000)?,
    ///             // Under a name of our own: others may send the same.
    ///             "photo" => drop(part.save(format!("/srv/photos/{:016x}", rand()), 10 << 20)?),
    ///             _ => {}
    ///         }
    ///     }
    ///     Ok(format!("thank you for {title}").into())
    /// }
    /// # fn rand() -> u64 { 4 }
    /// let server = Server::new().route(Method::POST, "/photos", upload);
    /// ```
    pub fn multipart(&mut self, limits: MultipartLimits) -> Result<Multipart<&mut RequestBody<'a>>, Refusal> {
        self.expect_type("a form with parts", |kind| kind == "multipart/form-data")?;
        // Of two, which may name different boundaries, another reader would take the other.
        if self.headers().get_all("Content-Type").nth(1).is_some() {
            return Err(io::Error::from(MultipartError::Malformed("more than one Content-Type")).into());
        }
        let content_type = self.header("Content-Type").unwrap_or_default();
        Ok(Multipart::new(&mut self.body, content_type, limits).map_err(io::Error::from)?)
    }
}

impl<R: Read> Multipart<R> {
    /// The form that `reader` gives, of this `Content-Type`.
    ///
    /// # Errors
    ///
    /// [`MultipartError::Malformed`] when it is none of a form, or names no boundary.
    pub fn new(
        reader: R,
        content_type: &str,
        limits: MultipartLimits,
    ) -> Result<Multipart<R>, MultipartError> {
        let decoder = MultipartDecoder::new(content_type, limits)?;
        Ok(Multipart { reader, input: Input::new(), decoder })
    }

    /// The next part; `None` when there are no more. What was left of the one before is passed over.
    ///
    /// # Errors
    ///
    /// Those of [`FormPart`].
    ///
    /// # Suspends
    ///
    /// Until its head has come.
    pub fn next_part(&mut self) -> io::Result<Option<FormPart<'_, R>>> {
        loop {
            match self.next_piece()? {
                MultipartPiece::Head(head, _) => {
                    return Ok(Some(FormPart { head: *head, form: self, is_over: false }));
                }
                MultipartPiece::Data(count) => self.take(count),
                MultipartPiece::End => return Ok(None),
                _ => {}
            }
        }
    }

    /// The next piece there is, which is passed over already if it is no data.
    fn next_piece(&mut self) -> io::Result<MultipartPiece> {
        loop {
            let piece = self.decoder.decode(self.input.bytes())?;
            match piece {
                MultipartPiece::Framing(count)
                | MultipartPiece::PartEnd(count)
                | MultipartPiece::Head(_, count) => self.input.consume(count),
                MultipartPiece::NeedMore => {
                    if !self.input.fill(Reading(&mut self.reader))? {
                        self.decoder.finish()?;
                    }
                    continue;
                }
                MultipartPiece::Data(_) | MultipartPiece::End => {}
            }
            return Ok(piece);
        }
    }

    fn take(&mut self, count: usize) {
        self.decoder.consume(count);
        self.input.consume(count);
    }
}

struct Reading<'a, R>(&'a mut R);

impl<R: Read> Source for Reading<'_, R> {
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl<R: Read> FormPart<'_, R> {
    /// All that its head says.
    pub fn head(&self) -> &PartHead {
        &self.head
    }

    /// The name of the form's field.
    pub fn name(&self) -> &str {
        self.head.name()
    }

    /// The name of the file, made safe: see [`PartHead::file_name`].
    pub fn file_name(&self) -> Option<&str> {
        self.head.file_name()
    }

    /// Whether it is a file.
    pub fn is_file(&self) -> bool {
        self.head.is_file()
    }

    /// What its sender takes it for.
    pub fn content_type(&self) -> &str {
        self.head.content_type()
    }

    /// All its fields.
    pub fn headers(&self) -> &Headers {
        self.head.headers()
    }

    /// All that is left of its data, `limit_bytes` at the most.
    ///
    /// # Errors
    ///
    /// [`MultipartError::PartTooLarge`], and those of reading.
    ///
    /// # Suspends
    ///
    /// Until it has come.
    pub fn bytes(mut self, limit_bytes: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Read::by_ref(&mut self).take((limit_bytes as u64).saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() > limit_bytes {
            return Err(MultipartError::PartTooLarge.into());
        }
        Ok(bytes)
    }

    /// All that is left of its data, as text of UTF-8, `limit_bytes` at the most.
    ///
    /// # Errors
    ///
    /// As [`FormPart::bytes`]; [`MultipartError::Malformed`] when it is no such text.
    ///
    /// # Suspends
    ///
    /// Until it has come.
    pub fn text(self, limit_bytes: usize) -> io::Result<String> {
        let bytes = self.bytes(limit_bytes)?;
        let malformed = MultipartError::Malformed("a value is not text of UTF-8");
        String::from_utf8(bytes).map_err(|_| malformed.into())
    }

    /// Writes what is left of its data to a new file at `path`, `limit_bytes` at the most. How many bytes there were.
    ///
    /// The path is the caller's choice: made of [`FormPart::file_name`] it stays in its directory, where the name may be
    /// taken. Whatever keeps the whole from being written takes the file away again, but the process's death: that leaves what
    /// had come by then, and others may see the file grow. Where that matters, save under a name that nobody looks for, and
    /// [`rename`](crate::fs::rename). It is not synced: a crash may take it, or its end, for some seconds.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when something is at `path`, and others of the file; [`MultipartError::PartTooLarge`], and those of
    /// reading.
    ///
    /// # Suspends
    ///
    /// Until it has come, and is written.
    pub fn save(mut self, path: impl AsRef<Path>, limit_bytes: u64) -> io::Result<u64> {
        let (file, unfinished) = Temporary::create(path.as_ref().to_owned(), FILE_MODE)?;
        let result = self.write_to(&file, limit_bytes);
        match result {
            Ok(_) => unfinished.keep(),
            Err(_) => unfinished.remove(),
        }
        result
    }

    fn write_to(&mut self, file: &File, limit_bytes: u64) -> io::Result<u64> {
        let mut written = 0;
        loop {
            let data = self.fill_buf()?;
            let count = data.len();
            if count == 0 {
                break;
            }
            if count as u64 > limit_bytes - written {
                return Err(MultipartError::PartTooLarge.into());
            }
            file.write_all_at(data, written)?;
            written += count as u64;
            self.consume(count);
        }
        Ok(written)
    }
}

impl<R: Read> BufRead for FormPart<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.is_over {
            return Ok(&[]);
        }
        match self.form.next_piece()? {
            MultipartPiece::Data(count) => Ok(&self.form.input.bytes()[..count]),
            _ => {
                self.is_over = true;
                Ok(&[])
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.form.take(count);
    }
}

impl<R: Read> Read for FormPart<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let data = self.fill_buf()?;
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=b";

    fn form(parts: &[(&str, &str)]) -> Vec<u8> {
        let mut wire = String::new();
        for (name, data) in parts {
            wire +=
                &format!("--b\r\nContent-Disposition: form-data; name={name}; filename=f\r\n\r\n{data}\r\n");
        }
        (wire + "--b--\r\n").into_bytes()
    }

    #[test]
    fn what_is_not_read_of_a_part_is_passed_over() {
        let long = "long ".repeat(40_000);
        let wire = form(&[("a", &long), ("b", "two"), ("c", "three")]);
        let mut form = Multipart::new(&wire[..], TYPE, MultipartLimits::default()).unwrap();
        let mut part = form.next_part().unwrap().unwrap();
        let mut beginning = [0; 4];
        part.read_exact(&mut beginning).unwrap();
        assert_eq!(&beginning, b"long");
        assert_eq!(form.next_part().unwrap().unwrap().name(), "b");
        assert_eq!(form.next_part().unwrap().unwrap().text(5).unwrap(), "three");
        assert!(form.next_part().unwrap().is_none());
        assert!(form.next_part().unwrap().is_none());
    }

    #[test]
    fn a_form_that_breaks_off_is_never_taken_for_the_whole() {
        let wire = form(&[("a", "some data")]);
        for length in 0..wire.len() - 4 {
            let mut form = Multipart::new(&wire[..length], TYPE, MultipartLimits::default()).unwrap();
            let mut all = || -> io::Result<()> {
                while let Some(part) = form.next_part()? {
                    part.bytes(100)?;
                }
                Ok(())
            };
            assert_eq!(all().unwrap_err().kind(), ErrorKind::UnexpectedEof, "{length} bytes of it");
        }
    }

    #[test]
    fn a_part_is_saved_whole_or_not_at_all() {
        crate::run(|| {
            let directory = tempfile::tempdir().unwrap();
            let wire = form(&[("a", "some data"), ("b", "0123456789"), ("c", "again")]);
            let mut form = Multipart::new(&wire[..], TYPE, MultipartLimits::default()).unwrap();
            let mut next = || {
                let part = form.next_part().unwrap().unwrap();
                // Each to its end before the next.
                part.save_to(directory.path())
            };
            assert_eq!(next().unwrap(), 9);
            assert_eq!(std::fs::read(directory.path().join("a")).unwrap(), b"some data");
            assert_eq!(next().unwrap_err().kind(), ErrorKind::InvalidData);
            std::fs::write(directory.path().join("c"), "was here").unwrap();
            assert_eq!(next().unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(directory.path().join("c")).unwrap(), b"was here");
            assert!(!std::fs::exists(directory.path().join("b")).unwrap(), "its name is free again");
        });
    }

    impl<R: Read> FormPart<'_, R> {
        fn save_to(self, directory: &Path) -> io::Result<u64> {
            let path = directory.join(self.name());
            self.save(path, 9)
        }
    }
}
