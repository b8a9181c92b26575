//! The bottom lines of stderr, which are redrawn in place, and the lines that stay above them. Where stderr
//! is no terminal, all lines stay.

use crate::output::note;
use console::Term;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// The width if the terminal does not report one.
const WIDTH: usize = 80;

/// The screen. The thread that handles Ctrl-C shares it.
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

    /// The terminal's current width in columns.
    pub(crate) fn width(&self) -> usize {
        self.with(|drawn| drawn.width())
    }

    /// Replaces the drawn lines. They must not be wider than the screen.
    pub(crate) fn draw(&self, lines: Vec<String>) {
        self.with(|drawn| drawn.update(lines, None));
    }

    /// Prints a line that stays, above the drawn lines.
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

    /// If drawing fails, the terminal is gone. The command goes on, and treats stderr as no terminal from now
    /// on: otherwise the undrawn text would pile up in memory.
    fn update(&mut self, mut lines: Vec<String>, above: Option<&str>) {
        let height = self.term.size_checked().map_or(usize::MAX, |(rows, _)| usize::from(rows));
        // The cursor stands in the row below, so one row less can be drawn.
        lines.truncate(height.saturating_sub(1));
        self.is_terminal = self.redraw(&lines, above).is_ok();
        self.lines = lines;
    }

    /// Redraws in one write. The cursor ends at the start of an empty row, where the terminal may echo `^C`
    /// without harm.
    fn redraw(&self, lines: &[String], above: Option<&str>) -> io::Result<()> {
        self.term.clear_line()?;
        // Row by row: some terminals keep a copy of rows that are cleared together.
        self.term.clear_last_lines(rows(&self.lines, self.width()))?;
        for line in above.into_iter().chain(lines.iter().map(String::as_str)) {
            self.term.write_line(line)?;
        }
        self.term.flush()
    }
}

/// The rows that these lines take. A terminal that became narrower wraps them.
fn rows(lines: &[String], width: usize) -> usize {
    lines.iter().map(|line| line.chars().count().div_ceil(width).max(1)).sum()
}

/// A bar of `cells` characters. The thick part is the part that is done.
pub(crate) fn bar(done: u64, total: u64, cells: usize) -> String {
    let thick = (cells as u64 * done.min(total) / total.max(1)) as usize;
    "━".repeat(thick) + &"─".repeat(cells - thick)
}

/// A line of at most `width` characters. An ellipsis shows where it was cut.
pub(crate) fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width.saturating_sub(1)).chain("…".chars().take(width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_the_same_length_whatever_is_done() {
        assert_eq!(bar(0, 16, 16), "────────────────");
        assert_eq!(bar(8, 16, 16), "━━━━━━━━────────");
        assert_eq!(bar(99, 16, 16), "━━━━━━━━━━━━━━━━");
        assert_eq!((cut("━━─ 50%  half", 7), cut("short", 7)), ("━━─ 50…".to_owned(), "short".to_owned()));
    }

    #[test]
    fn lines_that_were_wrapped_since_take_more_rows() {
        let lines = ["", "four", "seventy"].map(str::to_owned);
        assert_eq!([80, 7, 4, 2].map(|width| rows(&lines, width)), [3, 3, 4, 7]);
    }
}
