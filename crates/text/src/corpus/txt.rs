//! Plain text: stories separated by lines that are exactly `<|endoftext|>`.

use std::path::Path;

use super::lines::Lines;
use super::{MAX_STORY_BYTES, SEPARATOR};
use crate::error::{Error, Result};

pub(super) struct TxtStories {
    lines: Lines,
    story: Vec<u8>,
}

impl TxtStories {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { lines: Lines::open(path)?, story: Vec::new() })
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.lines.offset
    }

    /// The next story, which may be empty.
    pub(super) fn next_story(&mut self) -> Result<Option<String>> {
        self.story.clear();
        let start = self.lines.offset;
        loop {
            let line = self.story.len();
            if !self.lines.append(&mut self.story, MAX_STORY_BYTES)? {
                if self.story.is_empty() {
                    return Ok(None);
                }
                break;
            }
            if is_separator(&self.story[line..]) {
                self.story.truncate(line);
                break;
            }
        }
        let text = std::str::from_utf8(&self.story).map_err(|e| Error::NotUtf8 {
            path: self.lines.path().to_owned(),
            offset: start + e.valid_up_to() as u64,
        })?;
        Ok(Some(without_blank_lines_around(text).to_owned()))
    }
}

fn is_separator(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line) == SEPARATOR.as_bytes()
}

fn without_blank_lines_around(mut text: &str) -> &str {
    let blank = |line: &str| line.trim().is_empty();
    while let Some((first, rest)) = text.split_once('\n')
        && blank(first)
    {
        text = rest;
    }
    while let Some((rest, last)) = text.rsplit_once('\n')
        && blank(last)
    {
        text = rest;
    }
    if blank(text) { "" } else { text.strip_suffix('\r').unwrap_or(text) }
}
