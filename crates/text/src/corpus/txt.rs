//! Plain text. Markers, which may occur anywhere, separate the stories.

use std::collections::VecDeque;

use super::marker::{self, Boundaries};
use super::source::TextSource;
use super::{CorpusCounts, MAX_STORY_BYTES, SEPARATOR};
use crate::error::{Error, Result};

pub(super) struct TxtStories {
    source: TextSource,
    story: Vec<u8>,
    /// Whether the last story ended with a marker.
    after_marker: bool,
}

impl TxtStories {
    /// A source that begins within a file begins after a marker.
    pub(super) fn new(source: TextSource) -> Self {
        let after_marker = source.offset > 0;
        Self { source, story: Vec::new(), after_marker }
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.source.bytes_read()
    }

    /// Reads up to the next marker; `false` at the end of the file.
    pub(super) fn read(&mut self, stories: &mut VecDeque<String>, counts: &mut CorpusCounts) -> Result<bool> {
        self.story.clear();
        // Skips a byte order mark.
        self.source.peek()?;
        let start = self.source.offset;
        let most = MAX_STORY_BYTES + SEPARATOR.len();
        // A marker ends with '>'. Reading up to each '>' finds a marker that lies in two buffers.
        while self.source.append_until(b'>', &mut self.story, most)? > 0 {
            if self.story.ends_with(SEPARATOR.as_bytes()) {
                self.story.truncate(self.story.len() - SEPARATOR.len());
                self.cut(start, true, stories, counts)?;
                self.after_marker = true;
                return Ok(true);
            }
            if self.story.len() > most {
                return Err(self.too_long(start));
            }
        }
        self.cut(start, false, stories, counts)?;
        Ok(false)
    }

    fn cut(
        &self,
        start: u64,
        at_marker: bool,
        stories: &mut VecDeque<String>,
        counts: &mut CorpusCounts,
    ) -> Result<()> {
        if self.story.len() > MAX_STORY_BYTES {
            return Err(self.too_long(start));
        }
        let text = std::str::from_utf8(&self.story).map_err(|e| Error::NotUtf8 {
            path: self.source.path().to_owned(),
            offset: start + e.valid_up_to() as u64,
        })?;
        let at = Boundaries { marker_before: self.after_marker, marker_after: at_marker };
        marker::between(text, at, stories, counts);
        Ok(())
    }

    fn too_long(&self, start: u64) -> Error {
        let place = format!("byte {start}");
        Error::StoryTooLong { path: self.source.path().to_owned(), place, limit: MAX_STORY_BYTES }
    }
}
