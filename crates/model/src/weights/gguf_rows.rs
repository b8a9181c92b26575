//! Tensors of a GGUF file: their values, decoded, or the codes and scales themselves where our kernels have
//! the same.

use super::file::TensorFile;
use crate::error::Result;
use crate::gguf::RowOrder;
use crate::tensor::TensorSpec;
use crate::ternary::Codes;
use offramp_gguf::TensorType;
use offramp_kernels::f16;
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::strips::{STRIP, StripFormat, pack_codes};
use offramp_kernels::ternary::MAX_FEATURES;
use std::ops::Range;

/// Rows of a tensor, for their values.
pub(super) struct Rows {
    pub(super) kind: TensorType,
    pub(super) order: RowOrder,
    pub(super) in_features: usize,
    pub(super) start: usize, // the byte at which they begin
}

impl Rows {
    /// Reads the model's values from `first` on, row by row: each may lie elsewhere in the file.
    pub(super) fn read(&self, file: &TensorFile, first: usize, out: &mut [f32]) -> Result<()> {
        let (block, bytes) = (self.kind.block(), self.kind.block_bytes());
        let (mut stored, mut values, mut done) = (Vec::new(), Vec::new(), 0);
        while done < out.len() {
            let (row, column) = ((first + done) / self.in_features, (first + done) % self.in_features);
            let count = (self.in_features - column).min(out.len() - done);
            // Whole blocks around what is wanted.
            let (from, to) = (column / block, (column + count).div_ceil(block));
            stored.resize((to - from) * bytes, 0);
            values.resize((to - from) * block, 0.0);
            let place = self.order.place(row) * (self.in_features / block) + from;
            file.read_at(&mut stored, self.start + place * bytes)?;
            self.kind.decode(&stored, &mut values);
            out[done..done + count].copy_from_slice(&values[column - from * block..][..count]);
            done += count;
        }
        Ok(())
    }
}

/// A matrix whose values are codes, whole numbers, times the scale of their block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coded {
    pub(super) kind: TensorType,
    pub(super) bits: usize, // of a code
    pub(super) order: RowOrder,
    pub(super) start: usize, // the byte of the file at which it begins
    pub(super) rows: usize,
    pub(super) in_features: usize,
}

/// Some rows, in the order of the model.
#[derive(Default)]
struct Piece {
    stored: Vec<u8>,
    codes: Vec<i8>,   // [rows, in_features]
    scales: Vec<u16>, // [rows, blocks]
    halves: Vec<f16>, // [rows, blocks of a strip]
}

impl Coded {
    /// Whether strips of a format can have the codes.
    pub(super) fn fits(&self, format: StripFormat) -> bool {
        format.has_halves() && self.bits <= format.bits()
    }

    /// Packs all rows into strips of a format that [fits](Self::fits). All threads share the work.
    ///
    /// # Errors
    /// If the file cannot be read or a scale is not finite.
    pub(super) fn pack(
        &self,
        file: &TensorFile,
        spec: &TensorSpec,
        format: StripFormat,
        out: &mut [u8],
    ) -> Result<()> {
        // A longer block is several of the strip's, with one scale.
        let repeat = self.kind.block() / format.block();
        let one = |piece: &mut Piece, (index, out): (usize, &mut [u8])| {
            let range = index * STRIP..self.rows.min((index + 1) * STRIP);
            self.read(file, spec, range, piece)?;
            let Piece { codes, scales, halves, .. } = piece;
            halves.clear();
            halves.extend(scales.iter().flat_map(|&bits| std::iter::repeat_n(f16::from_bits(bits), repeat)));
            pack_codes(format, codes, halves, self.in_features, out);
            Ok(())
        };
        let strips = out.par_chunks_exact_mut(format.strip_bytes(self.in_features)).enumerate();
        let failed = strips.map_init(Piece::default, one);
        failed.find_map_first(Result::err).map_or(Ok(()), Err)
    }

    /// Reads codes and scales. Rows are read instead of mapped, so that no second copy of them stays in
    /// memory, and no page is mapped to be read once.
    fn read(
        &self,
        file: &TensorFile,
        spec: &TensorSpec,
        range: Range<usize>,
        piece: &mut Piece,
    ) -> Result<()> {
        let (first, blocks) = (range.start, self.in_features / self.kind.block());
        let bytes = blocks * self.kind.block_bytes();
        let Piece { stored, codes, scales, .. } = piece;
        stored.resize(range.len() * bytes, 0);
        codes.resize(range.len() * self.in_features, 0);
        scales.resize(range.len() * blocks, 0);
        match self.order {
            RowOrder::Own => file.read_at(stored, self.start + first * bytes)?,
            RowOrder::Halves { .. } => {
                for (row, stored) in range.zip(stored.chunks_exact_mut(bytes)) {
                    file.read_at(stored, self.start + self.order.place(row) * bytes)?;
                }
            }
        }
        self.kind.codes(stored, codes, scales);
        let odd = |&bits: &u16| !f16::from_bits(bits).is_finite();
        // No branch for each scale, so that compilers vectorize it.
        if !scales.iter().fold(false, |any, bits| any | odd(bits)) {
            return Ok(());
        }
        let fault = scales.iter().position(odd).map(|at| {
            let index = (first + at / blocks) * self.in_features + at % blocks * self.kind.block();
            (index, f16::from_bits(scales[at]).to_f32())
        });
        file.finite(spec, fault)
    }

    /// The step of a ternary matrix, if all its blocks have the same and rows are not too long for ternary
    /// strips; `stored` is the matrix.
    pub(super) fn step_of_all(&self, stored: &[u8]) -> Option<f32> {
        let bytes = self.kind.block_bytes();
        if self.bits != 2 || self.in_features > MAX_FEATURES {
            return None;
        }
        let scale = |block: &[u8]| u16::from_le_bytes([block[bytes - 2], block[bytes - 1]]);
        let first = scale(stored.get(..bytes)?);
        // Two bits may also be the code 2.
        let has_two = |block: &[u8]| {
            self.kind == TensorType::TQ2_0
                && block[..bytes - 2].iter().fold(0, |any, &byte| any | byte & byte >> 1 & 0x55) != 0
        };
        let alike = |block: &[u8]| scale(block) == first && !has_two(block);
        let all = stored.par_chunks_exact(bytes).with_min_len(1 << 10).all(alike);
        let step = f16::from_bits(first).to_f32();
        (all && step > 0.0 && step.is_finite()).then_some(step)
    }

    /// The codes of a matrix with one step.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn ternary(&self, file: &TensorFile, spec: &TensorSpec, step: f32) -> Result<Codes> {
        let mut codes = vec![0; self.rows * self.in_features];
        let one = |piece: &mut Piece, (index, out): (usize, &mut [i8])| {
            let first = index * STRIP;
            self.read(file, spec, first..first + out.len() / self.in_features, piece)?;
            out.copy_from_slice(&piece.codes);
            Ok(())
        };
        let strips = codes.par_chunks_mut(STRIP * self.in_features).enumerate();
        let failed = strips.map_init(Piece::default, one);
        failed.find_map_first(Result::err).map_or(Ok(Codes { codes, step }), Err)
    }
}
