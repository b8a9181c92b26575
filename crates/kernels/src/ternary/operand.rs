//! The other factor: tokens as whole numbers, one step for each.

use super::{BLOCK, FEW, blocks};
use crate::aligned::Aligned;
use crate::bit_linear::Activations;
use crate::table::{TILE_TOKENS, Table};
use crate::team;
use std::cell::RefCell;

thread_local! {
    /// A row that is rotated, `[in_features]`, and its codes, padded to whole blocks, `[blocks · BLOCK]`.
    static ROW: RefCell<(Vec<f32>, Vec<i8>)> = RefCell::default();
}

/// What becomes of a row before it is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// How it is quantised.
    pub activations: Activations,
    /// Whether it is rotated before.
    pub hadamard: bool,
}

impl Input {
    /// Each that there is.
    pub const ALL: [Self; 4] = [
        Self { activations: Activations::Int8, hadamard: false },
        Self { activations: Activations::Int8, hadamard: true },
        Self { activations: Activations::Int4, hadamard: false },
        Self { activations: Activations::Int4, hadamard: true },
    ];

    /// Its place in [`Input::ALL`].
    pub(crate) fn index(self) -> usize {
        2 * usize::from(self.activations == Activations::Int4) + usize::from(self.hadamard)
    }
}

/// Tokens in whole numbers: what a product reads together lies together.
#[derive(Clone, Copy, Debug)]
pub struct Quantised<'a> {
    codes: &'a [i8],    // [groups, blocks, group, BLOCK]
    steps: &'a [f32],   // [groups · group]
    offsets: &'a [i32], // [groups · group]: −Σ codes, where a sum begins
    pub(crate) blocks: usize,
    /// Tokens of a group: all if they are few, else those of a tile.
    pub(crate) group: usize,
}

impl<'a> Quantised<'a> {
    /// # Panics
    /// If these are not so many tokens.
    pub(super) fn check(&self, tokens: usize) {
        let places = self.steps.len();
        assert!(
            tokens <= places && places < tokens + self.group.max(1),
            "{tokens} tokens in {places} places"
        );
        assert_eq!(self.codes.len(), places * self.blocks * BLOCK, "codes of {places} tokens");
        assert_eq!(self.offsets.len(), places, "offsets of {places} tokens");
    }

    /// The codes of a block from a token on; those of the next ones of its group follow.
    pub(crate) fn codes(&self, block: usize, token: usize) -> &'a [i8] {
        let (group, place) = (token / self.group, token % self.group);
        &self.codes[((group * self.blocks + block) * self.group + place) * BLOCK..]
    }

    /// The steps from a token on.
    pub(crate) fn steps(&self, token: usize) -> &'a [f32] {
        &self.steps[token..]
    }

    /// The offsets from a token on.
    pub(crate) fn offsets(&self, token: usize) -> &'a [i32] {
        &self.offsets[token..]
    }
}

/// Makes [`Quantised`], in buffers kept from call to call.
#[derive(Clone, Debug, Default)]
pub struct Quantiser {
    codes: Aligned<i8>,
    steps: Vec<f32>,
    offsets: Vec<i32>,
    blocks: usize,
    group: usize,
}

impl Quantiser {
    /// Quantises `x` `[tokens, in_features]`, each row by itself.
    ///
    /// # Panics
    /// If `x` has not this shape, or rows to rotate are no power of two long.
    pub fn quantise(&mut self, table: &Table, input: Input, x: &[f32], in_features: usize) {
        self.quantise_on(1, table, (input, x, in_features));
    }

    /// As [`Quantiser::quantise`], on some threads.
    pub(crate) fn quantise_on(
        &mut self,
        threads: usize,
        table: &Table,
        (input, x, in_features): (Input, &[f32], usize),
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
                    let (step, sum) = (table.quantise_row)(input.activations, x, &mut row[..in_features]);
                    (out.0[place], out.1[place]) = (step, -sum);
                    for (block, row) in row.as_chunks::<BLOCK>().0.iter().enumerate() {
                        codes[(block * group + place) * BLOCK..][..BLOCK].copy_from_slice(row);
                    }
                }
            });
        });
    }

    /// The tokens of the last call.
    pub fn tokens(&self) -> Quantised<'_> {
        let Self { codes, steps, offsets, blocks, group } = self;
        Quantised { codes: codes.values(), steps, offsets, blocks: *blocks, group: *group }
    }
}
