//! What reading a corpus counts, and what is remarkable about it.

use std::ops::Add;

use serde::{Deserialize, Serialize};

use super::SEPARATOR;

/// A corpus that is one story of so many lines gets a remark.
const MANY_LINES: u64 = 100;

/// What reading a corpus counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusCounts {
    /// Stories, none of them empty.
    pub stories: u64,
    /// Records without a text: null, missing or empty.
    #[serde(default)]
    pub skipped: u64,
    /// Texts in which CRLF was read as LF.
    #[serde(default)]
    pub crlf: u64,
    /// Lines of all stories.
    #[serde(default)]
    pub lines: u64,
}

impl CorpusCounts {
    /// Remarks for the user, one line each.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let Self { stories, skipped, crlf, lines } = *self;
        if stories == 1 && lines >= MANY_LINES {
            remarks.push(format!(
                "its {lines} lines are one story: if they are many, put {SEPARATOR} between each two"
            ));
        }
        if skipped > 0 {
            let records = if skipped == 1 { "1 record" } else { &format!("{skipped} records") };
            remarks.push(format!("{records} without a text (null, missing or empty) skipped"));
        }
        if crlf > 0 {
            remarks.push("line ends CRLF are read as LF".to_owned());
        }
        remarks
    }
}

impl Add for CorpusCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            stories: self.stories + other.stories,
            skipped: self.skipped + other.skipped,
            crlf: self.crlf + other.crlf,
            lines: self.lines + other.lines,
        }
    }
}
