//! Progress on long work, when somebody watches.
//!
//! On a terminal: a bar or a spinner on standard error, gone when the work is done. Elsewhere: no such thing, so that logs
//! and pipes hold lines only; of what takes long one line says what it is.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reactor::JoinHandle;

use crate::output;

/// A quarter of a second: work that is shorter needs no bar.
const TICK: Duration = Duration::from_millis(250);

/// Progress through a number of bytes; `None` where the end is not known.
pub(crate) fn bytes(what: &str, total_bytes: Option<u64>) -> ProgressBar {
    let bar = match total_bytes {
        Some(total_bytes) => ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::stderr())
            .with_style(style("{msg} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left")),
        None => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
            .with_style(style("{msg} {spinner} {bytes} {binary_bytes_per_sec}")),
    };
    bar.with_message(what.to_owned())
}

/// A spinner for work whose length is unknown; it turns from a thread of its own.
pub(crate) fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        .with_style(style("{msg} {spinner} {elapsed}"))
        .with_message(what.to_owned());
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}

/// After so long whoever sees no bar is told what is waited for.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// Says a line while it lives, if that is long and there is no terminal to show a bar.
pub(crate) struct Telling(Option<JoinHandle<()>>);

/// Has `line` said on standard error if the result lives for longer than somebody waits who sees nothing. In a reactor.
pub(crate) fn tell_if_long(line: &'static str) -> Telling {
    let is_shown = std::io::stderr().is_terminal();
    Telling((!is_shown).then(|| {
        reactor::spawn(move || {
            reactor::sleep(TELL_AFTER);
            output::warn(line);
        })
    }))
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::terminate);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// 1536 is "1.5 KiB": three digits tell enough.
pub(crate) fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            return if unit == "B" || value >= 100.0 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

/// "1 file", "2 files and directories": what has changed is counted, and a new name changes its directory.
pub(crate) fn files_in_words(count: u64) -> String {
    format!("{count} file{}", if count == 1 { "" } else { "s and directories" })
}

/// "1 file", "2 files": of what is counted itself, and nothing with it.
pub(crate) fn only_files_in_words(count: u64) -> String {
    format!("{count} file{}", if count == 1 { "" } else { "s" })
}

/// How much waits to be stored, as everybody tells it.
pub(crate) fn amount_in_words(bytes: u64, file_count: u64) -> String {
    format!("{} in {}", human_bytes(bytes), files_in_words(file_count))
}

/// A span of seconds to the unit that a person would say.
pub(crate) fn human_duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_with_the_unit_that_fits() {
        assert_eq!(human_bytes(0), "0 B");
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(300 << 20), "300 MiB");
        assert_eq!(human_bytes(5 << 40), "5.0 TiB");
    }

    #[test]
    fn every_template_parses() {
        for bar in [bytes("a", Some(1)), bytes("a", None), spinner("a")] {
            bar.finish_and_clear();
        }
        assert!(ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {eta} left").is_ok());
    }
}
