//! `strftime_now`: the local time, formatted as by Python's `strftime`.

use std::fmt::Write;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Local, NaiveDateTime};
use minijinja::{Error, ErrorKind};

/// The time for a template.
#[derive(Debug, Clone, Copy, Default)]
pub enum TemplateClock {
    /// The machine's clock and time zone.
    #[default]
    Local,
    /// A fixed time, so that the same text can be rendered again.
    Fixed(NaiveDateTime),
}

impl TemplateClock {
    /// A time written as `2024-07-26T09:05:03`; `None` for any other text.
    #[must_use]
    pub fn fixed(moment: &str) -> Option<Self> {
        NaiveDateTime::parse_from_str(moment, "%Y-%m-%dT%H:%M:%S%.f").ok().map(Self::Fixed)
    }

    fn now(self) -> NaiveDateTime {
        match self {
            Self::Local => DateTime::<Local>::from(std::time::SystemTime::now()).naive_local(),
            Self::Fixed(moment) => moment,
        }
    }

    /// `datetime.now().strftime(format)`.
    pub(super) fn strftime(self, format: &str) -> Result<String, Error> {
        const LONGEST: usize = 1 << 10;
        if format.len() > LONGEST {
            let reason =
                format!("strftime_now: a format of {} bytes, at most {LONGEST} are taken", format.len());
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
        let now = self.now();
        let mut text = String::new();
        let mut rest = format;
        while let Some(start) = rest.find('%') {
            text.push_str(&rest[..start]);
            let length = directive_length(&rest[start..]);
            text.push_str(&directive(now, &rest[start..start + length]));
            rest = &rest[start + length..];
        }
        text.push_str(rest);
        Ok(text)
    }
}

/// The length in bytes of the directive at the beginning of `text`: `%`, flags, a letter.
fn directive_length(text: &str) -> usize {
    let flags = text[1..].bytes().take_while(|byte| b"-_0^#".contains(byte)).count();
    let letter = text[1 + flags..].chars().next().map_or(0, char::len_utf8);
    1 + flags + letter
}

/// One directive, as Python formats it on Linux. What is not a directive stays as it is.
fn directive(now: NaiveDateTime, directive: &str) -> String {
    let plain = match directive {
        // Python prints microseconds. A time without a zone has no zone name and no offset.
        "%f" => "%6f",
        "%z" | "%Z" | "%:z" => return String::new(),
        "%c" => "%a %b %e %H:%M:%S %Y",
        "%x" => "%m/%d/%y",
        "%X" => "%H:%M:%S",
        "%P" => "%P",
        "%s" => return now.and_local_timezone(Local).earliest().map_or(0, |t| t.timestamp()).to_string(),
        other => other,
    };
    let (upper, plain) = match plain.strip_prefix("%^") {
        Some(rest) => (true, format!("%{rest}")),
        None => (false, plain.to_owned()),
    };
    // Directives that chrono has and the system does not.
    if directive.ends_with(['v', 'q', '+']) {
        return directive.to_owned();
    }
    let items = StrftimeItems::new(&plain).collect::<Vec<_>>();
    if items.iter().any(|item| matches!(item, Item::Error)) {
        return directive.to_owned();
    }
    let mut text = String::new();
    if write!(text, "{}", now.format_with_items(items.iter())).is_err() {
        return directive.to_owned(); // it needs a time zone
    }
    if upper { text.to_uppercase() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The results of Python 3.11 on Linux.
    #[test]
    fn what_python_does_not_know_stays_as_it_is_written() {
        let clock = TemplateClock::fixed("2024-07-26T09:05:03").expect("a moment");
        for format in
            ["%+", "%v", "%q", "%Q", "%-+", "%-v", "%0q", "%N", "%L", "%i", "%!", "%3f", "%.3f", "%::z"]
        {
            assert_eq!(clock.strftime(format).expect("a text"), format);
        }
        assert_eq!(clock.strftime("%d %b %Y, %^a %H:%M").expect("a text"), "26 Jul 2024, FRI 09:05");
    }
}
