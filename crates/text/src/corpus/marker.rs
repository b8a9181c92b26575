//! Where one story ends and the next begins within a text: at `<|endoftext|>`, wherever it stands.
//!
//! The marker takes the spaces and tabs beside it on its line, and the blank lines around it. The beginning and the end
//! of a `.txt` file take blank lines too. What is not beside any of them stays letter for letter.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::{Found, SEPARATOR};

/// Cuts a record's text at its markers; all but empty stories go to `stories`.
pub(super) fn cut(text: &str, stories: &mut VecDeque<String>, found: &mut Found) {
    let text = with_line_feeds(text, found);
    let last = text.matches(SEPARATOR).count();
    for (index, piece) in text.split(SEPARATOR).enumerate() {
        let piece = if index > 0 { after(beside(piece)) } else { piece };
        push(if index < last { before(until(piece)) } else { piece }, stories, found);
    }
}

/// Takes what stands in a `.txt` file between two ends of stories, each of which is a marker or an end of the file.
pub(super) fn between(
    text: &str,
    (marker_before, marker_after): (bool, bool),
    stories: &mut VecDeque<String>,
    found: &mut Found,
) {
    let text = with_line_feeds(text, found);
    let text = if marker_before { beside(&text) } else { &text };
    push(before(if marker_after { until(after(text)) } else { after(text) }), stories, found);
}

fn push(story: &str, stories: &mut VecDeque<String>, found: &mut Found) {
    if !story.is_empty() {
        found.stories += 1;
        found.lines += 1 + story.bytes().filter(|&byte| byte == b'\n').count() as u64;
        stories.push_back(story.to_owned());
    }
}

/// CRLF is read as LF; any other carriage return is a letter.
fn with_line_feeds<'t>(text: &'t str, found: &mut Found) -> Cow<'t, str> {
    if !text.contains("\r\n") {
        return Cow::Borrowed(text);
    }
    found.crlf += 1;
    Cow::Owned(text.replace("\r\n", "\n"))
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

/// What follows the blanks on a marker's line.
fn beside(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// What stands before the blanks on a marker's line.
fn until(text: &str) -> &str {
    text.trim_end_matches([' ', '\t'])
}

/// What follows blank lines.
fn after(mut text: &str) -> &str {
    while let Some((first, rest)) = text.split_once('\n')
        && is_blank(first)
    {
        text = rest;
    }
    if is_blank(text) { "" } else { text }
}

/// What stands before blank lines.
fn before(mut text: &str) -> &str {
    while let Some((rest, last)) = text.rsplit_once('\n')
        && is_blank(last)
    {
        text = rest;
    }
    if is_blank(text) { "" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stories(cut: impl Fn(&str, &mut VecDeque<String>, &mut Found), text: &str) -> (Vec<String>, Found) {
        let (mut stories, mut found) = (VecDeque::new(), Found::default());
        cut(text, &mut stories, &mut found);
        (stories.into(), found)
    }

    #[test]
    fn a_text_without_a_marker_is_taken_letter_for_letter() {
        let text = " \n  One.\u{a0}\n\n ";
        assert_eq!(
            stories(cut, text),
            (vec![text.to_owned()], Found { stories: 1, lines: 4, ..Found::default() })
        );
    }

    #[test]
    fn a_marker_takes_the_blanks_beside_it_and_nothing_else() {
        let text = "  One.\n \t\n\t<|endoftext|> \n\n  Two. <|endoftext|> Three.\r\n\r\nStill.<|endoftext|><|endoftext|>\n";
        let (found, counted) = stories(cut, text);
        assert_eq!(found, ["  One.", "  Two.", "Three.\n\nStill."]);
        assert_eq!((counted.stories, counted.crlf, counted.lines), (3, 1, 5));
        assert_eq!(stories(cut, "<|endoftext|>").0, [""; 0]);
    }
}
