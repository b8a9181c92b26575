//! Attention of many texts in one call, over the engine's threads.

use super::{Attend, Blocks};
use crate::columns::{Claims, ColumnsMut};
use crate::dispatch::active;
use crate::{pool, team};

/// Multiply-adds of scores below which a thread is not worth calling.
const WORTH_A_THREAD: usize = 1 << 16;
/// Tokens of a text that are worth a part of their own, and the most parts into which a text is cut.
const PART: usize = 64;
const PARTS: usize = 8;

/// The heads of a layer, and how far they see.
#[derive(Clone, Copy, Debug)]
pub struct AttentionHeads {
    /// Key and value heads.
    pub kv_heads: usize,
    /// Query heads that share one of them and follow one another.
    pub group: usize,
    /// Length of a head.
    pub head_dim: usize,
    /// How many positions a token sees, itself among them; `None` for all.
    pub window: Option<usize>,
}

/// One text's share of a call: consecutive rows at consecutive positions.
#[derive(Clone, Copy, Debug)]
pub struct AttentionText<'a> {
    /// Rows of the call.
    pub rows: usize,
    /// The first row's position: row `t` sees the positions up to `first + t`.
    pub first: usize,
    /// Keys and values of all of them.
    pub cache: Blocks<'a>,
}

/// Some rows of one text, whose query heads threads claim.
struct Part<'a> {
    queries: &'a [f32],
    first: usize,
    cache: Blocks<'a>,
    claims: Claims<'a>,
}

impl AttentionHeads {
    /// Floats of a token's queries.
    fn width(&self) -> usize {
        self.kv_heads * self.group * self.head_dim
    }

    /// Attends from the rows of each text to its own cache; the texts' rows follow one another. A row's
    /// arithmetic is the same whatever other rows, texts and threads share the call.
    ///
    /// # Shapes
    /// `queries`, `out`: `[rows of all texts, kv_heads · group, head_dim]`; queries are scaled by `1 /
    /// √head_dim`
    ///
    /// # Panics
    /// If they are not, or a cache lacks blocks.
    pub fn attend(&self, queries: &[f32], texts: &[AttentionText<'_>], out: &mut [f32]) {
        let width = self.width();
        let rows: usize = texts.iter().map(|text| text.rows).sum();
        assert_eq!((queries.len(), out.len()), (rows * width, rows * width), "[{rows}, {width}]");
        let worth = |text: &AttentionText<'_>| text.rows * width * (text.first + text.rows) / WORTH_A_THREAD;
        let parts_of = |text| if worth(text) > 1 { text.rows.div_ceil(PART).clamp(1, PARTS) } else { 1 };
        let most = self.kv_heads * texts.iter().map(parts_of).sum::<usize>();
        let threads = texts.iter().map(worth).sum::<usize>().min(most).clamp(1, pool::threads());
        let (mut queries, mut out, mut parts) =
            (queries, out, Vec::with_capacity(most / self.kv_heads.max(1)));
        for text in texts {
            let rows_of_part = text.rows.div_ceil(parts_of(text));
            for start in (0..text.rows).step_by(rows_of_part.max(1)) {
                let rows = rows_of_part.min(text.rows - start);
                let (here, rest) = std::mem::take(&mut out).split_at_mut(rows * width);
                let claims = Claims::new(ColumnsMut::new(here, width), self.unit(), self.unit(), threads);
                let first = text.first + start;
                parts.push(Part { queries: &queries[..rows * width], first, cache: text.cache, claims });
                (queries, out) = (&queries[rows * width..], rest);
            }
        }
        let table = active();
        team::together(threads, &|thread| {
            // A text's last rows see most: who is done early finds something short to help with.
            for part in parts.iter().rev() {
                while let Some((column, out)) = part.claims.claim(thread) {
                    (table.attend)(&self.job(part, column), out);
                }
            }
        });
    }

    /// Columns that one key head serves.
    fn unit(&self) -> usize {
        self.group * self.head_dim
    }

    fn job<'a>(&self, part: &Part<'a>, column: usize) -> Attend<'a> {
        Attend {
            queries: &part.queries[column..],
            stride: self.width(),
            head_dim: self.head_dim,
            first: part.first,
            window: self.window,
            cache: part.cache,
            kv_head: column / self.unit(),
        }
    }
}
