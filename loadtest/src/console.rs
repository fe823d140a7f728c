//! Words to the person who runs the tool: results on standard output, progress on standard error.

use std::io::Write;

/// One line of a result. A closed pipe is the reader's choice, not an error.
pub(crate) fn result(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stdout(), "{}", line.as_ref());
}

/// One line of progress.
pub(crate) fn progress(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr(), "{}", line.as_ref());
}
