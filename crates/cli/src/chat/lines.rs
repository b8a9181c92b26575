//! The lines that a person types: messages, which may have several lines, and commands.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, Read};

/// The most bytes of a message: more than the tokenizer takes, so that the tokenizer reports one that is too
/// long.
const MOST: u64 = 8 << 20;

const TOO_LONG: &str = "a message has more than 8 MiB: shorten it";

/// Marks the beginning and the end of a message of several lines.
const QUOTES: &str = "\"\"\"";

/// A line or block of input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UserInput {
    Message(String),
    Command(Command),
    /// An unknown command.
    Unknown(String),
    /// An empty line.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Reset,
    Quit,
}

pub(super) const HELP: &str = "\
/reset   begin a new conversation
/quit    leave, as the end of input does (Ctrl-D)
/help    this list
Ctrl-C stops an answer; where there is none, it leaves. A line that ends in \\ goes on with the next;
\"\"\" begins and ends a message of several lines. A message that begins with / begins with a space.";

pub(super) struct Lines<R> {
    input: R,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input }
    }

    /// The next message or command; `None` at the end of the input. `more` is called before each further line
    /// of a message.
    ///
    /// # Errors
    /// If the input cannot be read, or is not text.
    pub(super) fn next(&mut self, more: impl Fn()) -> Result<Option<UserInput>> {
        let Some(line) = self.line()? else { return Ok(None) };
        if let Some(name) = line.strip_prefix('/') {
            return Ok(Some(match name.trim_end() {
                "help" | "?" => UserInput::Command(Command::Help),
                "reset" => UserInput::Command(Command::Reset),
                "quit" | "exit" => UserInput::Command(Command::Quit),
                name => UserInput::Unknown(name.to_owned()),
            }));
        }
        let message = match line.trim_start().strip_prefix(QUOTES) {
            Some(first) => self.block(first.to_owned(), more)?,
            None => self.continued(line, more)?,
        };
        Ok(Some(if message.trim().is_empty() { UserInput::Nothing } else { UserInput::Message(message) }))
    }

    /// Reads lines up to one that ends with quotes.
    fn block(&mut self, first: String, more: impl Fn()) -> Result<String> {
        let mut lines = first;
        loop {
            if let Some(inner) = lines.trim_end().strip_suffix(QUOTES) {
                return Ok(inner.trim_matches('\n').to_owned());
            }
            more();
            let Some(line) = self.line()? else { return Ok(lines) };
            lines = check_length(lines + "\n" + &line)?;
        }
    }

    /// Reads further lines, as long as the last one ends with a backslash.
    fn continued(&mut self, first: String, more: impl Fn()) -> Result<String> {
        let mut lines = first;
        while let Some(before) = lines.strip_suffix('\\') {
            let before = before.to_owned() + "\n";
            more();
            let Some(line) = self.line()? else { return Ok(before) };
            lines = check_length(before + &line)?;
        }
        Ok(lines)
    }

    /// The next line without its end.
    fn line(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(MOST).read_until(b'\n', &mut bytes);
        if read.context("cannot read what is said")? == 0 {
            return Ok(None);
        }
        if bytes.len() as u64 == MOST && !bytes.ends_with(b"\n") {
            bail!(TOO_LONG);
        }
        let Ok(mut line) = String::from_utf8(bytes) else {
            bail!("stdin holds a line that is no UTF-8 text: convert it")
        };
        if line.ends_with('\n') {
            line.pop();
            if line.ends_with('\r') {
                line.pop();
            }
        }
        Ok(Some(line))
    }
}

fn check_length(lines: String) -> Result<String> {
    if lines.len() as u64 > MOST {
        bail!(TOO_LONG);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &str) -> Vec<UserInput> {
        let mut lines = Lines::new(input.as_bytes());
        std::iter::from_fn(|| lines.next(|| ()).unwrap()).collect()
    }

    fn message(text: &str) -> UserInput {
        UserInput::Message(text.to_owned())
    }

    #[test]
    fn lines_are_messages_or_commands() {
        assert_eq!(all("Hello\r\n  there \n"), [message("Hello"), message("  there ")]);
        assert_eq!(all("no end"), [message("no end")]);
        assert_eq!(all("\n  \n"), [UserInput::Nothing, UserInput::Nothing]);
        assert_eq!(
            all("/reset \n/quit\n/help"),
            [Command::Reset, Command::Quit, Command::Help].map(UserInput::Command)
        );
        assert_eq!(all("/srv is full\n"), [UserInput::Unknown("srv is full".to_owned())]);
        assert_eq!(all(" /srv is full\n"), [message(" /srv is full")]);
        assert_eq!(all(""), []);
    }

    #[test]
    fn a_message_may_have_several_lines() {
        assert_eq!(all("one\\\ntwo\\\nthree\nfour\n"), [message("one\ntwo\nthree"), message("four")]);
        assert_eq!(
            all("\"\"\"\n/one\n\n two\\\n\"\"\"\nthree\n"),
            [message("/one\n\n two\\"), message("three")]
        );
        assert_eq!(all("\"\"\"one\"\"\"\n"), [message("one")]);
        assert_eq!(all("\"\"\"one\ntwo"), [message("one\ntwo")], "an end of input ends it");
        assert_eq!(all("one\\"), [message("one\n")]);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let mut lines = Lines::new(&b"a\xff\n"[..]);
        assert!(lines.next(|| ()).unwrap_err().to_string().contains("UTF-8"));
        let long = "x".repeat(9 << 20);
        let mut lines = Lines::new(long.as_bytes());
        assert!(lines.next(|| ()).unwrap_err().to_string().contains("more than"));
    }
}
