//! Quantizes the tokens of a call to whole numbers, with one scale for each token.

use super::layout::{BLOCK, blocks};
use super::row_quantized::RowQuantized;
use crate::aligned::Aligned;
use crate::bit_linear::Activations;
use crate::strips::block_quantized::FEW;
use crate::table::{TILE_TOKENS, Table};
use crate::team;
use std::cell::RefCell;

thread_local! {
    /// A row that is rotated, `[in_features]`, and its codes, padded to whole blocks, `[blocks · BLOCK]`.
    static ROW: RefCell<(Vec<f32>, Vec<i8>)> = RefCell::default();
}

/// How a row is quantized before it is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputQuantization {
    /// The bits of its codes.
    pub activations: Activations,
    /// Whether it is rotated before that.
    pub hadamard: bool,
}

impl InputQuantization {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self { activations: Activations::Int8, hadamard: false },
        Self { activations: Activations::Int8, hadamard: true },
        Self { activations: Activations::Int4, hadamard: false },
        Self { activations: Activations::Int4, hadamard: true },
    ];

    /// Its place in [`InputQuantization::ALL`].
    pub(crate) fn index(self) -> usize {
        2 * usize::from(self.activations == Activations::Int4) + usize::from(self.hadamard)
    }
}

/// Makes [`RowQuantized`] tokens in buffers that are kept from call to call.
#[derive(Clone, Debug, Default)]
pub struct RowQuantizer {
    codes: Aligned<i8>,
    steps: Vec<f32>,
    offsets: Vec<i32>,
    blocks: usize,
    group: usize,
}

impl RowQuantizer {
    /// Quantizes `x` `[tokens, in_features]`, each row by itself.
    ///
    /// # Panics
    /// If `x` has not this shape, or rows are rotated whose length is no power of two.
    pub fn quantize(&mut self, table: &Table, input: InputQuantization, x: &[f32], in_features: usize) {
        self.quantize_on(1, table, input, x, in_features);
    }

    /// As [`RowQuantizer::quantize`], on some threads.
    pub(crate) fn quantize_on(
        &mut self,
        threads: usize,
        table: &Table,
        input: InputQuantization,
        x: &[f32],
        in_features: usize,
    ) {
        assert!(in_features > 0 && x.len().is_multiple_of(in_features), "x is [tokens, {in_features}]");
        let (tokens, blocks) = (x.len() / in_features, blocks(in_features));
        let group = if tokens > FEW { TILE_TOKENS } else { tokens };
        let places = tokens.next_multiple_of(group.max(1));
        (self.blocks, self.group) = (blocks, group);
        let codes = self.codes.resize(places * blocks * BLOCK);
        self.steps.resize(places, 0.0);
        self.offsets.resize(places, 0);
        let of_tokens = self.steps.chunks_mut(group.max(1)).zip(self.offsets.chunks_mut(group.max(1)));
        let groups = codes.chunks_mut((group * blocks * BLOCK).max(1)).zip(of_tokens);
        team::share(threads, x.chunks(group.max(1) * in_features).zip(groups), |(x, (codes, out))| {
            ROW.with_borrow_mut(|(rotated, row)| {
                row.clear();
                row.resize(blocks * BLOCK, 0);
                for (place, x) in x.chunks_exact(in_features).enumerate() {
                    let mut x = x;
                    if input.hadamard {
                        rotated.clear();
                        rotated.extend_from_slice(x);
                        (table.hadamard)(rotated);
                        x = rotated;
                    }
                    let (step, sum) = (table.quantize_row)(input.activations, x, &mut row[..in_features]);
                    (out.0[place], out.1[place]) = (step, -sum);
                    for (block, row) in row.as_chunks::<BLOCK>().0.iter().enumerate() {
                        codes[(block * group + place) * BLOCK..][..BLOCK].copy_from_slice(row);
                    }
                }
            });
        });
    }

    /// The tokens of the last call.
    pub fn tokens(&self) -> RowQuantized<'_> {
        let Self { codes, steps, offsets, blocks, group } = self;
        RowQuantized { codes: codes.values(), steps, offsets, blocks: *blocks, group: *group }
    }
}
