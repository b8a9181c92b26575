//! Words in a command that a message suggests.

/// A word as a POSIX shell reads it: plain or in quotes.
pub fn quoted(word: &str) -> String {
    let plain = |char: char| char.is_alphanumeric() || "_@%+=:,./-".contains(char);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::process::Command;

    /// The shell is the judge.
    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in [
            "runs/first-light",
            "my runs/a b",
            "it's",
            "'",
            "",
            "$HOME",
            "a\\b",
            "`x`",
            "\"q\"",
            "~",
            "é中",
            "a;b&c",
            "*",
        ] {
            let told = Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(word))).output();
            assert_eq!(String::from_utf8_lossy(&told.expect("a shell").stdout), word);
        }
        assert_eq!(quoted("runs/first-light"), "runs/first-light");
        assert_eq!(quoted("my runs"), "'my runs'");
    }
}
