//! Cuts a text into stories at `<|endoftext|>`.
//!
//! The spaces and tabs beside the marker on its line belong to the marker, and so do the blank lines around
//! it. Blank lines at the beginning and end of a `.txt` file are dropped too. Everything else stays as it is.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::{CorpusCounts, SEPARATOR};

/// Cuts a record's text at its markers and appends the stories that are not empty.
pub(super) fn cut(text: &str, stories: &mut VecDeque<String>, counts: &mut CorpusCounts) {
    let text = with_line_feeds(text, counts);
    let last = text.matches(SEPARATOR).count();
    for (index, piece) in text.split(SEPARATOR).enumerate() {
        let piece = if index > 0 { after(beside(piece)) } else { piece };
        push(if index < last { before(until(piece)) } else { piece }, stories, counts);
    }
}

/// The boundaries of a piece of a `.txt` file. One without a marker is an end of the file.
pub(super) struct Boundaries {
    pub(super) marker_before: bool,
    pub(super) marker_after: bool,
}

/// Appends the story between two boundaries of a `.txt` file.
pub(super) fn between(text: &str, at: Boundaries, stories: &mut VecDeque<String>, counts: &mut CorpusCounts) {
    let text = with_line_feeds(text, counts);
    let text = if at.marker_before { beside(&text) } else { &text };
    push(before(if at.marker_after { until(after(text)) } else { after(text) }), stories, counts);
}

fn push(story: &str, stories: &mut VecDeque<String>, counts: &mut CorpusCounts) {
    if !story.is_empty() {
        counts.stories += 1;
        counts.lines += 1 + story.bytes().filter(|&byte| byte == b'\n').count() as u64;
        stories.push_back(story.to_owned());
    }
}

/// Reads CRLF as LF. Any other carriage return stays.
fn with_line_feeds<'t>(text: &'t str, counts: &mut CorpusCounts) -> Cow<'t, str> {
    if !text.contains("\r\n") {
        return Cow::Borrowed(text);
    }
    counts.crlf += 1;
    Cow::Owned(text.replace("\r\n", "\n"))
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

/// The text without the spaces and tabs at its beginning.
fn beside(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// The text without the spaces and tabs at its end.
fn until(text: &str) -> &str {
    text.trim_end_matches([' ', '\t'])
}

/// The text without the blank lines at its beginning.
fn after(mut text: &str) -> &str {
    while let Some((first, rest)) = text.split_once('\n')
        && is_blank(first)
    {
        text = rest;
    }
    if is_blank(text) { "" } else { text }
}

/// The text without the blank lines at its end.
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

    fn stories(
        cut: impl Fn(&str, &mut VecDeque<String>, &mut CorpusCounts),
        text: &str,
    ) -> (Vec<String>, CorpusCounts) {
        let (mut stories, mut counts) = (VecDeque::new(), CorpusCounts::default());
        cut(text, &mut stories, &mut counts);
        (stories.into(), counts)
    }

    #[test]
    fn a_text_without_a_marker_is_taken_letter_for_letter() {
        let text = " \n  One.\u{a0}\n\n ";
        assert_eq!(
            stories(cut, text),
            (vec![text.to_owned()], CorpusCounts { stories: 1, lines: 4, ..CorpusCounts::default() })
        );
    }

    #[test]
    fn a_marker_takes_the_blanks_beside_it_and_nothing_else() {
        let text = "  One.\n \t\n\t<|endoftext|> \n\n  Two. <|endoftext|> Three.\r\n\r\nStill.<|endoftext|><|endoftext|>\n";
        let (counts, counted) = stories(cut, text);
        assert_eq!(counts, ["  One.", "  Two.", "Three.\n\nStill."]);
        assert_eq!((counted.stories, counted.crlf, counted.lines), (3, 1, 5));
        assert_eq!(stories(cut, "<|endoftext|>").0, [""; 0]);
    }
}
