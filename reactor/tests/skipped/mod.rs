//! What a test says that tries nothing here, since a program is missing.

use std::io::Write as _;

/// Says so where it is read although the test passes: what `eprintln!` writes is thrown away then. Where everything must be there,
/// which `SKIP_NOTHING` in the environment says, it is a failure.
#[track_caller]
pub(crate) fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    assert!(std::env::var_os("SKIP_NOTHING").is_none(), "nothing may be skipped here, but {why}");
}
