//! What stands in a file, within a message that goes to a terminal.

/// Text that came from a file, fit for a line: control characters escaped, and where it goes on and on cut in the
/// middle, since what parsers expect stands at the end.
pub fn legible(text: &str) -> String {
    shortened(text, 100, 60)
}

/// Another's message, which may run over several lines and quote whatever a file holds: in one line, and cut as
/// [`legible`] cuts.
pub fn one_line(message: &str) -> String {
    shortened(&message.split_whitespace().collect::<Vec<_>>().join(" "), 300, 100)
}

/// At most so many characters of the beginning and of the end.
fn shortened(text: &str, beginning: usize, end: usize) -> String {
    let count = text.chars().count();
    if count <= beginning + end {
        return escaped(text);
    }
    let place = |index| text.char_indices().nth(index).map_or(text.len(), |(place, _)| place);
    format!("{}…{}", escaped(&text[..place(beginning)]), escaped(&text[place(count - end)..]))
}

fn escaped(text: &str) -> String {
    let mut line = String::new();
    for char in text.chars() {
        match char.is_control() {
            true => line.extend(char.escape_default()),
            false => line.push(char),
        }
    }
    line
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
        for line in [legible(&long), one_line(&long)] {
            assert!(line.starts_with("string \"é") && line.ends_with("\", expected u64"), "{line}");
            assert!(line.chars().count() < 700 && !line.contains(char::is_control), "{line}");
        }
    }
}
