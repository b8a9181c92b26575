//! One JSON object per line, the story under `text`; other keys are ignored, blank lines skipped.

use std::path::Path;

use serde::Deserialize;

use super::MAX_STORY_BYTES;
use super::lines::Lines;
use crate::error::{Error, Result, one_line};

/// A line holds a story, its escapes and other keys.
const MAX_LINE_BYTES: usize = 2 * MAX_STORY_BYTES;

#[derive(Deserialize)]
struct Record {
    text: String,
}

pub(super) struct JsonlStories {
    lines: Lines,
    line: Vec<u8>,
}

impl JsonlStories {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { lines: Lines::open(path)?, line: Vec::new() })
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.lines.offset
    }

    pub(super) fn next_story(&mut self) -> Result<Option<String>> {
        loop {
            self.line.clear();
            if !self.lines.append(&mut self.line, MAX_LINE_BYTES)? {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                return self.story().map(Some);
            }
        }
    }

    fn story(&self) -> Result<String> {
        let path = self.lines.path().to_owned();
        let line = self.lines.number;
        // serde would also take the fields from an array, one after another.
        if self.line.trim_ascii_start().first() == Some(&b'[') {
            return Err(Error::Jsonl { path, line, reason: "an array".into() });
        }
        let record: Record = serde_json::from_slice(&self.line).map_err(|e| {
            let message = e.to_string();
            // serde_json counts lines within our one line; only its column means anything.
            let reason = message.split(" at line ").next().unwrap_or(&message);
            Error::Jsonl {
                path: path.clone(),
                line,
                reason: format!("{} (column {})", one_line(reason), e.column()),
            }
        })?;
        if record.text.len() > MAX_STORY_BYTES {
            return Err(Error::StoryTooLong { path, place: format!("line {line}"), limit: MAX_STORY_BYTES });
        }
        Ok(record.text)
    }
}
