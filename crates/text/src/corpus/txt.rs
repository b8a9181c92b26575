//! Plain text: stories lie between markers, which may stand anywhere.

use std::collections::VecDeque;

use super::source::Source;
use super::{Found, MAX_STORY_BYTES, SEPARATOR, marker};
use crate::error::{Error, Result};

pub(super) struct TxtStories {
    source: Source,
    story: Vec<u8>,
    /// Whether the last story ended with a marker.
    after_marker: bool,
}

impl TxtStories {
    pub(super) fn new(source: Source) -> Self {
        Self { source, story: Vec::new(), after_marker: false }
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.source.bytes_read()
    }

    /// Reads up to the next marker; `false` at the end of the file.
    pub(super) fn read(&mut self, stories: &mut VecDeque<String>, found: &mut Found) -> Result<bool> {
        self.story.clear();
        // The first bytes may be a mark that is no text.
        self.source.peek()?;
        let start = self.source.offset;
        let most = MAX_STORY_BYTES + SEPARATOR.len();
        // To each '>', with which a marker ends: so none is missed between two readings.
        while self.source.append_until(b'>', &mut self.story, most)? > 0 {
            if self.story.ends_with(SEPARATOR.as_bytes()) {
                self.story.truncate(self.story.len() - SEPARATOR.len());
                self.cut(start, true, stories, found)?;
                self.after_marker = true;
                return Ok(true);
            }
            if self.story.len() > most {
                return Err(self.too_long(start));
            }
        }
        self.cut(start, false, stories, found)?;
        Ok(false)
    }

    fn cut(
        &self,
        start: u64,
        at_marker: bool,
        stories: &mut VecDeque<String>,
        found: &mut Found,
    ) -> Result<()> {
        if self.story.len() > MAX_STORY_BYTES {
            return Err(self.too_long(start));
        }
        let text = std::str::from_utf8(&self.story).map_err(|e| Error::NotUtf8 {
            path: self.source.path().to_owned(),
            offset: start + e.valid_up_to() as u64,
        })?;
        marker::between(text, (self.after_marker, at_marker), stories, found);
        Ok(())
    }

    fn too_long(&self, start: u64) -> Error {
        let place = format!("byte {start}");
        Error::StoryTooLong { path: self.source.path().to_owned(), place, limit: MAX_STORY_BYTES }
    }
}
