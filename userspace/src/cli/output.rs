//! What the command line prints.

use std::io::{self, Write as _};

use thiserror::Error;

/// Something could not be printed.
#[derive(Debug, Error)]
#[error("cannot write to the standard output: {0}")]
pub struct OutputError(#[from] io::Error);

impl OutputError {
    /// Whether the reader of a pipe has left, as in `trunkline status | head -1`: there is nobody to tell.
    pub fn reader_has_left(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Prints a text as one line, or as the lines that it has. Unlike `println!`, it does not panic.
pub(super) fn print_lines(text: &str) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end())?;
    Ok(stdout.flush()?)
}
