//! What the program says to people, and why saying it can neither fail nor wait.
//!
//! A terminal that was closed, a full disk under a log, a pipe that nobody reads: none of them may stop a drive, end a
//! coroutine or keep a node from being started again. So a line goes into a bounded row, one for each of the two
//! streams, and a thread takes it from there and writes it. A failure to write is nobody's news; a line that finds the
//! row full is dropped and counted, and the count is written once somebody reads again.
//!
//! Not here: what a command was asked to print (`print`), which must reach the reader or be an error.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{Debug, Display, Write as _};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use filesystem::format::{Shown, is_unseen};
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::errors::Failure;
use crate::log_file::Bounded;

/// How many lines may wait: what a busy second says, and a few hundred KiB at most.
const ROW_LENGTH: usize = 1024;
/// How long the end of the program waits for a reader: a stopped terminal must not keep it for ever.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// Characters of an event in the log, and of each of what it is about.
const EVENT_LENGTH_MAX: usize = 16 << 10;
const FIELD_LENGTH_MAX: usize = 2 << 10;
/// Where events come from that have several lines, all of them ours: coroutines and their stacks.
const OF_LINES: &str = "reactor::dump";
/// Standard output may have been made non-blocking by whoever shares it: how often it is tried again.
const RETRY: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy)]
enum Stream {
    Output,
    Error,
}

enum Message {
    Text(Vec<u8>),
    /// From here on the stream is this file, and its size is bounded.
    Bound(PathBuf),
    /// Everything before this has been written.
    Settled(SyncSender<()>),
}

/// One stream's row.
struct Row {
    sender: SyncSender<Message>,
    lost: &'static AtomicU64,
}

static LOST: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static ROWS: [OnceLock<Option<Row>>; 2] = [OnceLock::new(), OnceLock::new()];

/// Prints a line for the user on standard output.
pub(crate) fn say(line: impl Display) {
    send(Stream::Output, Message::Text(obeyed_by_none(format!("{line}\n")).into_bytes()));
}

/// Prints a line for the user on standard error.
pub(crate) fn warn(line: impl Display) {
    send(Stream::Error, Message::Text(obeyed_by_none(format!("{line}\n")).into_bytes()));
}

/// What somebody else said, as a part of a line of ours: it ends no line, no terminal obeys it, and it has no more than so many
/// characters.
pub(crate) fn others_words(said: &str, length_max: usize) -> String {
    let (said, end) = match said.char_indices().nth(length_max) {
        Some((end, _)) => (&said[..end], "…"),
        None => (said, ""),
    };
    format!("{}{end}", Shown::unseen_only(said))
}

/// Writes out what a terminal would obey, or show as something else, but for the ends of lines. Names are shown by `Shown`, and words of
/// peers by [`others_words`], which have told their ends of lines from ours already; this is for all that came another way: a path of this
/// machine, an error of a library.
fn obeyed_by_none(text: String) -> String {
    let is_plain = |c: char| c == '\n' || !is_unseen(c);
    if text.chars().all(is_plain) {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        plain += Shown::unseen_only(line).as_str();
        plain += end;
    }
    plain
}

/// Prints what a command was asked for. Whoever reads may have enough of it (`| head -1`): that is no error.
///
/// # Errors
/// `Failure::Stream` if it can't be written.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_as_it_is(&obeyed_by_none(text.into()))
}

/// Prints what a program was asked for, as JSON and a line. What a terminal would obey stands there as JSON has it, so that it means the
/// same.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Internal(error.to_string()))?;
    print_as_it_is(&(as_json_has_it(&text) + "\n"))
}

fn as_json_has_it(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !is_unseen(c) {
            plain.push(c);
        } else {
            // Beyond strings there are none of these.
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| plain += &format!("\\u{unit:04x}"));
        }
    }
    plain
}

fn print_as_it_is(text: &str) -> Result<(), Failure> {
    settle();
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|source| Failure::Stream { what: "standard output", source }),
    }
}

/// Standard error is this file: it is turned over before it grows without bound.
pub(crate) fn bound_log(path: PathBuf) {
    send(Stream::Error, Message::Bound(path));
}

/// Waits until everything said so far is written, for two seconds at most. Blocks the thread: for the end of the
/// program.
pub(crate) fn settle() {
    let until = Instant::now() + SETTLE_LIMIT;
    for row in ROWS.iter().filter_map(|row| row.get()?.as_ref()) {
        let (done, settled) = mpsc::sync_channel(1);
        let mut message = Message::Settled(done);
        while let Err(TrySendError::Full(back)) = row.sender.try_send(message) {
            if Instant::now() > until {
                return;
            }
            message = back;
            thread::sleep(RETRY);
        }
        let _ = settled.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// Has panics told like everything else: the standard hook writes to standard error itself, and waits for it.
pub(crate) fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            warn(format_args!("{panic}\n{backtrace}"));
        } else {
            warn(panic);
        }
    }));
}

/// Where `tracing` writes its events.
pub(crate) struct Log;

/// Where it writes one of them.
pub(crate) struct LogEvent {
    has_lines: bool,
}

impl MakeWriter<'_> for Log {
    type Writer = LogEvent;

    fn make_writer(&self) -> LogEvent {
        LogEvent { has_lines: false }
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> LogEvent {
        LogEvent { has_lines: metadata.target() == OF_LINES }
    }
}

/// An event of the log as one of the lines that are said to people: `warning:` or `error:`, what it is, and what it is about.
pub(crate) struct PlainEvents;

impl<S, N> FormatEvent<S, N> for PlainEvents
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => "note",
        };
        let mut sentence = Sentence::default();
        event.record(&mut sentence);
        writeln!(writer, "{level}: {}{}", sentence.message, sentence.rest)
    }
}

/// What an event says, and behind it what of: the reason as it is, all else by its name.
#[derive(Default)]
struct Sentence {
    message: String,
    rest: String,
}

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => {
                let value = others_words(&format!("{value:?}"), FIELD_LENGTH_MAX);
                match name {
                    "error" | "reason" | "why" => write!(self.rest, ": {value}"),
                    name => write!(self.rest, ", {} {value}", name.replace('_', " ")),
                }
            }
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl LogEvent {
    /// What is written: the end of its line is ours, and all within it may be of what a peer said.
    fn text(&self, event: &[u8]) -> String {
        let text = String::from_utf8_lossy(event);
        match self.has_lines {
            true => obeyed_by_none(text.into_owned()),
            false => others_words(text.strip_suffix('\n').unwrap_or(&text), EVENT_LENGTH_MAX) + "\n",
        }
    }
}

/// One call is one event.
impl Write for LogEvent {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        send(Stream::Error, Message::Text(self.text(event).into_bytes()));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn send(stream: Stream, message: Message) {
    match ROWS[stream as usize].get_or_init(|| start(stream)) {
        Some(row) => {
            if let Err(TrySendError::Full(Message::Text(_))) = row.sender.try_send(message) {
                row.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        // No thread can be had: better to wait than to be silent.
        None => {
            if let Message::Text(text) = message {
                let _ = write(stream, &text);
            }
        }
    }
}

fn start(stream: Stream) -> Option<Row> {
    let (sender, messages) = mpsc::sync_channel(ROW_LENGTH);
    let lost = &LOST[stream as usize];
    let writer = thread::Builder::new().name(format!("{stream:?}")).spawn(move || {
        write_row(stream, &messages, lost);
    });
    writer.ok().map(|_| Row { sender, lost })
}

fn write_row(stream: Stream, messages: &Receiver<Message>, lost: &AtomicU64) {
    let mut bounded: Option<Bounded> = None;
    while let Ok(message) = messages.recv() {
        match message {
            Message::Text(text) => {
                if bounded.as_mut().is_none_or(|log| log.has_room(text.len())) {
                    let _ = write(stream, &text);
                }
            }
            Message::Bound(path) => bounded = Bounded::standard_error(path),
            Message::Settled(done) => drop(done.send(())),
        }
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            let _ = write(stream, format!("({count} lines were dropped: nobody took them)\n").as_bytes());
        }
    }
}

fn write(stream: Stream, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        let written = match stream {
            Stream::Output => {
                let mut output = io::stdout().lock();
                output.write(text).and_then(|count| output.flush().map(|()| count))
            }
            Stream::Error => io::stderr().lock().write(text),
        };
        match written {
            Ok(0) => return Ok(()),
            Ok(count) => text = &text[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, event: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(event);
            Ok(event.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Lines;

        fn make_writer(&self) -> Lines {
            self.clone()
        }
    }

    #[test]
    fn no_terminal_obeys_what_is_said() {
        let said = "a \\ of ours\n\u{1b}[2Jx\r\u{202e}y\ttab\u{9b}z\n".to_owned();
        assert_eq!(obeyed_by_none(said), "a \\ of ours\n\\x1b[2Jx\\r\\u{202e}y\\ttab\\u{9b}z\n");
        let json =
            as_json_has_it(&serde_json::to_string_pretty(&["a\u{202e}\u{9b}\n\u{e0041}\u{1b}é"]).unwrap());
        assert!(json.chars().all(|c| c == '\n' || !is_unseen(c)), "{json}");
        let read: Vec<String> = serde_json::from_str(&json).unwrap();
        assert_eq!(read, ["a\u{202e}\u{9b}\n\u{e0041}\u{1b}é"]);
    }

    #[test]
    fn what_others_say_is_a_part_of_a_line_and_not_a_long_one() {
        assert_eq!(others_words("caf\\xe9 is full", 200), "caf\\xe9 is full");
        assert_eq!(others_words("x\n\nhealthy: all\u{1b}[2J", 200), "x\\n\\nhealthy: all\\x1b[2J");
        assert_eq!(others_words("éééé", 4), "éééé");
        assert_eq!(others_words(&"é\n".repeat(1 << 20), 3), "é\\né…");
    }

    #[test]
    fn no_word_of_another_ends_a_line_of_the_log() {
        let forged = "refused\nerror: the disk is gone\u{2028}x";
        let lines = Lines::default();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(lines.clone());
        let log = log.event_format(PlainEvents).finish();
        tracing::subscriber::with_default(log, || {
            let error = io::Error::other(forged);
            tracing::warn!(peer = forged, shown = %forged, error = &error as &dyn std::error::Error, "no answer");
        });
        let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(said.matches("\\nerror: the disk").count(), 3, "{said}");
        assert!(said.ends_with('\n') && said.lines().count() == 1, "{said}");
        // As it is with times, for a file.
        let event = format!("2026 WARN peer: no answer error={forged}\n");
        let said = LogEvent { has_lines: false }.text(event.as_bytes());
        assert_eq!(said, "2026 WARN peer: no answer error=refused\\nerror: the disk is gone\\u{2028}x\n");
        let long = LogEvent { has_lines: false }.text(&vec![b'\n'; 1 << 20]);
        assert!(long.len() < 3 * EVENT_LENGTH_MAX && long.ends_with("…\n"));
        // Of coroutines each has a line.
        assert_eq!(LogEvent { has_lines: true }.text(b"one\ntwo\x1b\n"), "one\ntwo\\x1b\n");
    }

    #[test]
    fn an_event_is_one_of_the_lines_without_a_time_or_a_place_in_the_program() {
        let lines = Lines::default();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(lines.clone());
        let log = log.event_format(PlainEvents).finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!(seconds_left = 3, error = "no room", "the store takes no changes");
        });
        let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(said, "warning: the store takes no changes, seconds left 3: no room\n");
    }
}
