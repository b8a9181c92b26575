//! The lower end of stderr: a few lines that are drawn again in their place, with what stays above them.
//! Where stderr is no terminal there are only lines that stay.

use crate::output::note;
use console::Term;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the terminal does not say how wide it is.
const WIDTH: usize = 80;

/// The screen, shared with the thread that hears Ctrl-C.
#[derive(Clone, Debug)]
pub(crate) struct Screen(Arc<Mutex<Drawn>>);

#[derive(Debug)]
struct Drawn {
    term: Term,
    is_terminal: bool,
    lines: Vec<String>,
}

impl Screen {
    pub(crate) fn stderr() -> Self {
        let term = Term::buffered_stderr();
        let is_terminal = term.is_term() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self(Arc::new(Mutex::new(Drawn { term, is_terminal, lines: Vec::new() })))
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.with(|drawn| drawn.is_terminal)
    }

    /// Columns of the terminal now.
    pub(crate) fn width(&self) -> usize {
        self.with(|drawn| drawn.width())
    }

    /// Draws these lines in place of the ones before. They must not be wider than the screen.
    pub(crate) fn draw(&self, lines: Vec<String>) {
        self.with(|drawn| drawn.update(lines, None));
    }

    /// A line that stays, above those that are drawn again.
    pub(crate) fn say(&self, line: &str) {
        let drawn = self.with(|drawn| {
            if drawn.is_terminal {
                let lines = drawn.lines.clone();
                drawn.update(lines, Some(line));
            }
            drawn.is_terminal
        });
        if !drawn {
            note(line);
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Drawn) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drawn {
    fn width(&self) -> usize {
        self.term.size_checked().map_or(WIDTH, |(_, columns)| usize::from(columns)).max(1)
    }

    /// A terminal that has gone away is no reason to stop, and is none any more: what is drawn would be
    /// gathered.
    fn update(&mut self, mut lines: Vec<String>, above: Option<&str>) {
        let height = self.term.size_checked().map_or(usize::MAX, |(rows, _)| usize::from(rows));
        // The cursor waits in the row below: there is always one row less.
        lines.truncate(height.saturating_sub(1));
        self.is_terminal = self.redraw(&lines, above).is_ok();
        self.lines = lines;
    }

    /// One write. The cursor ends at the start of an empty row: there a `^C` may be echoed, and harms
    /// nothing.
    fn redraw(&self, lines: &[String], above: Option<&str>) -> io::Result<()> {
        self.term.clear_line()?;
        // Row by row: some terminals keep a copy of what is cleared at once.
        self.term.clear_last_lines(rows(&self.lines, self.width()))?;
        for line in above.into_iter().chain(lines.iter().map(String::as_str)) {
            self.term.write_line(line)?;
        }
        self.term.flush()
    }
}

/// Rows that lines take: a terminal that was made narrower since has wrapped them.
fn rows(lines: &[String], width: usize) -> usize {
    lines.iter().map(|line| line.chars().count().div_ceil(width).max(1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_were_wrapped_since_take_more_rows() {
        let lines = ["", "four", "seventy"].map(str::to_owned);
        assert_eq!([80, 7, 4, 2].map(|width| rows(&lines, width)), [3, 3, 4, 7]);
    }
}
