//! The `Date` field, made once a second.

use std::cell::Cell;

/// `Date: Sun, 06 Nov 1994 08:49:37 GMT` and the line end.
const SIZE_BYTES: usize = 37;

pub(super) struct Date {
    line: Cell<[u8; SIZE_BYTES]>,
}

impl Date {
    pub(super) fn new() -> Date {
        let date = Date { line: Cell::new([0; SIZE_BYTES]) };
        date.update();
        date
    }

    /// Takes the time anew.
    pub(super) fn update(&self) {
        let text = format!("Date: {}\r\n", httpdate::fmt_http_date(crate::wall_clock()));
        // A year beyond 9999 would be longer; the old date then stays.
        if let Ok(line) = text.into_bytes().try_into() {
            self.line.set(line);
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.line.get());
    }
}
