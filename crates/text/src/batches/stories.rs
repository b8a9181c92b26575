//! A stream whose stories stand in another order in each epoch.
//!
//! Only where each story begins is kept: 20 bytes for each. The tokens are read where they stand.

use super::{below, generator};
use crate::error::Result;
use crate::stream::TokenStream;

/// Tokens read at once in the search for the ends of stories.
const PART: usize = 1 << 16;

/// The stories of a stream, in the order of one epoch. As in the stream itself, one end-of-text token stands
/// between two of them.
#[derive(Debug)]
pub(super) struct Stories {
    end_of_text: u32,
    begins: Vec<u64>, // of each story in the stream; at the end, one past the token that would follow the last
    order: Vec<u32>,
    places: Vec<u64>, // of each story of the order, in the new stream
}

impl Stories {
    /// Finds the stories of a stream.
    pub(super) fn find(stream: &TokenStream, end_of_text: u32) -> Result<Self> {
        let mut begins = vec![0];
        let mut part = vec![0; PART];
        let mut at = 0;
        while at < stream.len() {
            let part = &mut part[..PART.min((stream.len() - at) as usize)];
            stream.read(at, part)?;
            let ends = (at..).zip(&*part).filter(|(_, token)| **token == end_of_text);
            begins.extend(ends.map(|(place, _)| place + 1));
            at += part.len() as u64;
        }
        begins.push(stream.len() + 1);
        Ok(Self { end_of_text, begins, order: Vec::new(), places: Vec::new() })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.begins.len() - 1
    }

    /// Puts them into the order of an epoch.
    pub(super) fn shuffle(&mut self, seed: u64, epoch: u64) {
        let mut random = generator(seed, epoch, b"offramp stories\0");
        self.order.clear();
        self.order.extend(0..self.len() as u32);
        for last in (1..self.order.len()).rev() {
            self.order.swap(last, below(&mut random, last as u64 + 1) as usize);
        }
        self.places.clear();
        let mut place = 0;
        for &story in &self.order {
            self.places.push(place);
            place += self.begins[story as usize + 1] - self.begins[story as usize];
        }
    }

    /// Copies the tokens from `start` on into `out`.
    pub(super) fn read(&self, stream: &TokenStream, mut start: u64, mut out: &mut [u32]) -> Result<()> {
        // The last story that begins at or before `start`.
        let mut index = self.places.partition_point(|&place| place <= start).saturating_sub(1);
        while !out.is_empty() {
            let story = self.order[index] as usize;
            let skipped = start - self.places[index];
            let with_end = self.begins[story + 1] - self.begins[story]; // and the token that follows
            let here = (with_end - skipped).min(out.len() as u64) as usize;
            let (now, later) = out.split_at_mut(here);
            let tokens = (with_end - 1).saturating_sub(skipped).min(here as u64) as usize;
            stream.read(self.begins[story] + skipped, &mut now[..tokens])?;
            now[tokens..].fill(self.end_of_text);
            (out, index) = (later, index + 1);
            start += here as u64;
        }
        Ok(())
    }
}
