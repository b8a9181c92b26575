//! Writes text, tables and JSON to stdout, and lines to stderr. A stderr that cannot be written changes
//! nothing. A stdout that cannot be written ends the command, because its result is lost.

use serde::{Serialize, Serializer};
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// The reason why stdout could not be written.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// The reader has closed stdout, as `head` does.
    ReaderGone,
    /// stdout is full or broken.
    Failed(io::Error),
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe { Self::ReaderGone } else { Self::Failed(error) }
    }
}

impl fmt::Display for Unwritten {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReaderGone => out.write_str("the reader of stdout has gone"),
            Self::Failed(error) => write!(out, "cannot write to stdout: {error}; send it elsewhere"),
        }
    }
}

impl std::error::Error for Unwritten {}

/// Writes text as it is and flushes it.
pub(crate) fn text(text: &str) -> Result<(), Unwritten> {
    let mut stdout = io::stdout().lock();
    Ok(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())?)
}

/// Writes one JSON value and a line feed.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Unwritten> {
    text(&(serde_json::to_string_pretty(value).map_err(io::Error::from)? + "\n"))
}

/// Writes a line to stderr in one call.
pub(crate) fn note(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Writes a question to stderr, without a line feed, so that the answer is typed behind it.
pub(crate) fn ask(words: &str) {
    let _ = io::stderr().write_all(words.as_bytes());
}

/// A path in JSON, which is text: bytes that are not UTF-8 become U+FFFD.
pub(crate) fn path<S: Serializer>(path: &impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.as_ref().to_string_lossy())
}

/// Columns of numbers and short words, aligned to the right.
pub(crate) struct TextTable {
    rows: Vec<Vec<String>>,
}

impl TextTable {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    /// # Panics
    /// If the number of cells is not that of the head.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.rows[0].len(), "a cell for each column");
        self.rows.push(cells.to_vec());
    }

    /// The table as text, with a line under the head.
    pub(crate) fn render(&self) -> String {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}"));
            cells.collect::<Vec<_>>().join("  ") + "\n"
        };
        let mut lines: Vec<String> = self.rows.iter().map(line).collect();
        let rule = "─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)) + "\n";
        lines.insert(1, rule);
        lines.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = TextTable::new(["exit", "perplexity"]);
        table.row(["6".to_owned(), "12.50".to_owned()]);
        table.row(["24".to_owned(), "–".to_owned()]);
        assert_eq!(
            table.render(),
            "exit  perplexity\n────────────────\n   6       12.50\n  24           –\n"
        );
    }
}
