//! Which rows of a call belong to which text.

use crate::error::Result;
use crate::kv_cache::{KvCache, LayerBlock};
use offramp_kernels::attend::AttentionText;
use offramp_kernels::{pool, team};
use std::ops::Range;

/// The texts of one call of [`Llama::forward`](crate::Llama::forward): each has some rows, which follow those
/// of the text before, and a cache, whose positions they continue. One text is the smallest batch.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    texts: Vec<Text<'a>>,
    one: bool, // text, which has all rows
}

#[derive(Debug)]
struct Text<'a> {
    cache: &'a mut KvCache,
    rows: usize,
    first: usize, // position of the first row, in the call at work
}

/// Values of keys below which a thread is not worth calling to write them.
const WORTH_A_THREAD: usize = 32 << 10;

impl<'a> Batch<'a> {
    /// A batch of one text, which has all rows of every call.
    pub fn one(cache: &'a mut KvCache) -> Self {
        Self { texts: vec![Text { cache, rows: 0, first: 0 }], one: true }
    }

    /// Adds a text that has the next `rows` rows.
    ///
    /// # Panics
    /// If this is a batch of one text.
    pub fn push(&mut self, cache: &'a mut KvCache, rows: usize) {
        assert!(!self.one, "a batch of one text takes no other");
        self.texts.push(Text { cache, rows, first: 0 });
    }

    /// Checks that it has as many rows as a call.
    ///
    /// # Panics
    /// If it has not.
    pub(crate) fn fit(&mut self, rows: usize) {
        if self.one {
            self.texts[0].rows = rows;
        }
        assert_eq!(rows, self.rows(), "a batch of as many rows as there are tokens in flight");
    }

    /// Rows of all texts.
    pub(crate) fn rows(&self) -> usize {
        self.texts.iter().map(|text| text.rows).sum()
    }

    /// Places every text's rows behind the positions that `layers` hold, and checks that they fit.
    ///
    /// # Panics
    /// If the layers of a cache hold different numbers of positions.
    pub(crate) fn place(&mut self, layers: Range<usize>) -> Result<()> {
        for text in &mut self.texts {
            text.first = text.cache.len(layers.start);
            let alike = layers.clone().all(|layer| text.cache.len(layer) == text.first);
            assert!(alike, "layers {layers:?} hold different positions");
            text.cache.check(text.first, text.rows)?;
        }
        Ok(())
    }

    /// The position of every row.
    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> {
        self.texts.iter().flat_map(|text| text.first..text.first + text.rows)
    }

    /// Positions that all rows see, counted with each row: the row at position p sees p + 1, or those of its
    /// window.
    pub(crate) fn seen(&self, window: Option<usize>) -> u64 {
        let most = window.unwrap_or(usize::MAX);
        self.positions().map(|position| (position + 1).min(most) as u64).sum()
    }

    /// Positions that are read of all caches once the rows are in them.
    pub(crate) fn read(&self, window: Option<usize>) -> u64 {
        let most = |text: &Text<'_>| window.map_or(usize::MAX, |window| window.saturating_add(text.rows - 1));
        let texts = self.texts.iter().filter(|text| text.rows > 0);
        texts.map(|text| (text.first + text.rows).min(most(text)) as u64).sum()
    }

    /// The largest number of positions that a cache may hold.
    pub(crate) fn capacity(&self) -> usize {
        self.texts.iter().map(|text| text.cache.capacity()).max().unwrap_or(0)
    }

    /// Bytes that [`reserve`](Self::reserve) may take.
    pub(crate) fn unreserved(&self) -> u64 {
        let of_text = |text: &Text<'_>| text.cache.unreserved(text.first..text.first + text.rows);
        self.texts.iter().map(of_text).fold(0, u64::saturating_add)
    }

    /// Makes sure of the blocks that the rows need.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        self.texts.iter_mut().try_for_each(|text| text.cache.reserve(text.first..text.first + text.rows))
    }

    /// Writes `keys` and `values` `[rows, kv_heads, head_dim]` into one layer of the caches.
    pub(crate) fn append(&mut self, layer: usize, keys: &[f32], values: &[f32], head_dim: usize) {
        let width = keys.len() / self.rows().max(1);
        let threads = if keys.len() < WORTH_A_THREAD { 1 } else { pool::threads() };
        let mut row = 0;
        let mut jobs: Vec<(LayerBlock<'_>, Range<usize>)> = Vec::new();
        for text in &mut self.texts {
            let of_text = row * width..(row + text.rows) * width;
            row += text.rows;
            let positions = text.first..text.first + text.rows;
            jobs.extend(text.cache.layer_mut(layer, positions).into_iter().map(|b| (b, of_text.clone())));
        }
        team::share(threads, jobs.into_iter(), |(block, of_text)| {
            block.write(&keys[of_text.clone()], &values[of_text], head_dim);
        });
        self.texts.iter_mut().for_each(|text| text.cache.grow(layer, text.rows));
    }

    /// Calls `work` with every text's rows and what a layer holds of it.
    pub(crate) fn with_layer(&self, layer: usize, work: impl FnOnce(&[AttentionText<'_>])) {
        let held: Vec<_> = self.texts.iter().map(|text| text.cache.layer(layer)).collect();
        let texts = self.texts.iter().zip(&held);
        let texts = texts.map(|(text, held)| AttentionText {
            rows: text.rows,
            first: text.first,
            cache: held.as_blocks(),
        });
        work(&texts.collect::<Vec<_>>());
    }
}
