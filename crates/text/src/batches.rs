//! The stream as training reads it: windows in random order, the same for the same seed.
//!
//! A stream of `n` tokens is cut into windows of `T` inputs; the labels are the next tokens. Every epoch
//! draws an offset in `0..T` at which the cutting begins, and a new order of the windows, both from ChaCha8
//! with the key (seed, epoch). An epoch has `⌊(n − T) / T⌋` windows (at least 1), the number that fits for
//! every offset.
//!
//! In every epoch, the stories may also stand in a new order, drawn from another stream of the same key
//! ([`Batches::shuffling_stories`]). A window then begins and ends in other stories than before.
//!
//! Micro-batch `i` holds the windows `i·B … i·B + B − 1`, counted from the start of the run. So the index
//! alone is enough to resume a run. A batch may cross the end of an epoch. One epoch's order stays in memory:
//! 4 bytes per window.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use crate::error::{Error, Result};
use crate::stream::TokenStream;
use stories::Stories;

mod stories;

/// Deterministic micro-batches; see the head of this file.
pub struct Batches<'s> {
    stream: &'s TokenStream,
    batch_size: usize,
    sequence_length: usize,
    seed: u64,
    windows: u32,
    stories: Option<Stories>, // where their order changes
    epoch: Epoch,
    window: Vec<u32>, // [sequence_length + 1]
}

/// The order of one epoch's windows.
struct Epoch {
    number: u64,
    offset: u64,
    order: Vec<u32>, // [windows]
}

impl<'s> Batches<'s> {
    /// Micro-batches of `batch_size` windows of `sequence_length` tokens.
    ///
    /// # Errors
    /// [`Error::TooShort`] if the stream has fewer than `sequence_length + 1` tokens; [`Error::Option`] if a
    /// size is 0, or the stream has more than 2³² windows.
    pub fn new(
        stream: &'s TokenStream,
        batch_size: usize,
        sequence_length: usize,
        seed: u64,
    ) -> Result<Self> {
        for (option, size) in [("batch_size", batch_size), ("sequence_length", sequence_length)] {
            if size == 0 {
                return Err(Error::Option { option, found: "0".into(), expected: "must be at least 1" });
            }
        }
        let (len, length) = (stream.len(), sequence_length as u64);
        if len <= length {
            return Err(Error::TooShort { len, needed: length.saturating_add(1) });
        }
        let windows = u32::try_from(((len - length) / length).max(1)).map_err(|_| Error::Option {
            option: "sequence_length",
            found: sequence_length.to_string(),
            expected: "must be longer, for the corpus has more than 2^32 windows of this length",
        })?;
        let mut batches = Self {
            stream,
            batch_size,
            sequence_length,
            seed,
            windows,
            stories: None,
            epoch: Epoch { number: 0, offset: 0, order: Vec::new() },
            window: vec![0; sequence_length + 1],
        };
        batches.begin(0);
        Ok(batches)
    }

    /// The same, with the stories in a new order in each epoch. Reads the stream once, to find them.
    ///
    /// # Errors
    /// As [`TokenStream::read`]; [`Error::Option`] if there are more than 2³² stories.
    pub fn shuffling_stories(mut self, end_of_text: u32) -> Result<Self> {
        let stories = Stories::find(self.stream, end_of_text)?;
        if u32::try_from(stories.len()).is_err() {
            let (option, found) = ("shuffle", "stories".to_owned());
            return Err(Error::Option {
                option,
                found,
                expected: "must be windows: there are more than 2^32 stories",
            });
        }
        self.stories = Some(stories);
        self.begin(0);
        Ok(self)
    }

    /// Fills micro-batch `index`, counted from the start of the run: `labels[i]` is the token after
    /// `inputs[i]`.
    ///
    /// # Shapes
    /// `inputs`, `labels`: `[batch_size, sequence_length]`
    ///
    /// # Errors
    /// As [`TokenStream::read`].
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn fill(&mut self, index: u64, inputs: &mut [u32], labels: &mut [u32]) -> Result<()> {
        let tokens = self.batch_size * self.sequence_length;
        assert!(inputs.len() == tokens && labels.len() == tokens, "a batch has {tokens} tokens");
        let rows =
            inputs.chunks_exact_mut(self.sequence_length).zip(labels.chunks_exact_mut(self.sequence_length));
        for (row, (inputs, labels)) in rows.enumerate() {
            // After 2^64 windows the count wraps to 0.
            let sample = index.wrapping_mul(self.batch_size as u64).wrapping_add(row as u64);
            let start = self.window_start(sample);
            match &self.stories {
                Some(stories) => stories.read(self.stream, start, &mut self.window)?,
                None => self.stream.read(start, &mut self.window)?,
            }
            inputs.copy_from_slice(&self.window[..self.sequence_length]);
            labels.copy_from_slice(&self.window[1..]);
        }
        Ok(())
    }

    fn window_start(&mut self, sample: u64) -> u64 {
        let windows = u64::from(self.windows);
        let (epoch, place) = (sample / windows, sample % windows);
        if epoch != self.epoch.number {
            self.begin(epoch);
        }
        self.epoch.offset + u64::from(self.epoch.order[place as usize]) * self.sequence_length as u64
    }

    fn begin(&mut self, number: u64) {
        let mut random = generator(self.seed, number, b"offramp batches\0");
        if let Some(stories) = &mut self.stories {
            stories.shuffle(self.seed, number);
        }
        let length = self.sequence_length as u64;
        // The windows of an epoch, and the label of the last, must fit for every offset.
        let slack = self.stream.len() - 1 - u64::from(self.windows) * length;
        let offset = below(&mut random, length.min(slack + 1));
        let mut order = std::mem::take(&mut self.epoch.order);
        order.clear();
        order.extend(0..self.windows);
        for last in (1..order.len()).rev() {
            order.swap(last, below(&mut random, last as u64 + 1) as usize);
        }
        self.epoch = Epoch { number, offset, order };
    }
}

/// What an epoch's draws of one kind come from.
fn generator(seed: u64, epoch: u64, kind: &[u8; 16]) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..].copy_from_slice(kind);
    ChaCha8Rng::from_seed(key)
}

/// A uniform number below `bound`. It is written out here so that no new version of a library can change a
/// run: the high half of a product, drawn again where the low half would be biased (Lemire 2019,
/// arXiv:1805.10941).
fn below(random: &mut impl Rng, bound: u64) -> u64 {
    let unfair = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(random.next_u64()) * u128::from(bound);
        if product as u64 >= unfair {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests;
