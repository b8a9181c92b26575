//! Text out of files, made fit for an error message on a terminal.

/// Text from a file, made fit for one line: control characters are escaped. A long text is cut in the middle,
/// because parsers put what they expected at the end.
pub fn legible(text: &str) -> String {
    shortened(text, 100, 60)
}

/// The message of another library, which may have several lines and may quote a file, as one line. A long
/// message is cut as [`legible`] cuts it.
pub fn one_line(message: &str) -> String {
    shortened(&message.split_whitespace().collect::<Vec<_>>().join(" "), 300, 100)
}

/// Keeps at most `beginning` and `end` characters, counted after escaping.
fn shortened(text: &str, beginning: usize, end: usize) -> String {
    let shown: Vec<char> = text.chars().flat_map(escaped).take(beginning + end + 1).collect();
    if shown.len() <= beginning + end {
        return shown.into_iter().collect();
    }
    let last = text.char_indices().rev().nth(end - 1).map_or(0, |(place, _)| place);
    let last: Vec<char> = text[last..].chars().flat_map(escaped).collect();
    shown[..beginning].iter().chain(&['…']).chain(&last[last.len().saturating_sub(end)..]).collect()
}

fn escaped(char: char) -> impl Iterator<Item = char> {
    let (plain, control) =
        if char.is_control() { (None, Some(char.escape_default())) } else { (Some(char), None) };
    plain.into_iter().chain(control.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_there_is_a_line_that_somebody_reads() {
        assert_eq!(legible("model.norm.weight, 昔々"), "model.norm.weight, 昔々");
        assert_eq!(legible("a\r\n\u{1b}[2J\u{9b}2J\u{7f}"), r"a\r\n\u{1b}[2J\u{9b}2J\u{7f}");
        assert_eq!(one_line("  two\n   lines\r\n\u{1b}[2J"), r"two lines \u{1b}[2J");
        let long = format!("string \"{}\", expected u64", "é\n".repeat(100_000));
        assert!(legible(&"\0".repeat(1000)).len() < 200, "counted as it is shown");
        for line in [legible(&long), one_line(&long)] {
            assert!(line.starts_with("string \"é") && line.ends_with("\", expected u64"), "{line}");
            assert!(line.chars().count() < 700 && !line.contains(char::is_control), "{line}");
        }
    }
}
