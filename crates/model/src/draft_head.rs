//! A cheaper head for drafts: the LM head in a narrower format, or only its rows of some tokens, or both.
//!
//! What it says is verified by the model's own head, so that it may err: only speed depends on how often.

use crate::error::{Error, Result};
use crate::format::Format;
use crate::hidden::Hidden;
use crate::layout::Values;
use crate::linear::Linear;
use crate::llama::{Llama, new_id};
use crate::scratch::Scratch;
use crate::source::Source;
use crate::tensor::TensorSpec;
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::strips::{STRIP, StripFormat};
use offramp_kernels::ternary::InputQuantization;
use std::ops::Range;

/// A copy of a model's LM head that only drafts.
#[derive(Clone, Debug)]
pub struct DraftHead {
    id: u64,
    model: u64,                  // whose head it is a copy of
    weight: Linear,              // [shortlist, hidden], or [vocab, hidden]
    shortlist: Option<Vec<u32>>, // whose rows they are, ascending
    vocab_size: usize,
}

impl DraftHead {
    /// A number that no other draft head of this process has; clones share it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it is a copy of this model's head. What another's says is no draft of this one's: it may be of
    /// another width or vocabulary.
    pub fn is_of(&self, model: &Llama) -> bool {
        self.model == model.id()
    }

    /// Its number format.
    pub fn format(&self) -> Format {
        self.weight.format()
    }

    /// How many tokens it can draft.
    pub fn tokens(&self) -> usize {
        self.weight.out_features()
    }

    /// Bytes that a drafted token reads of it.
    pub fn bytes(&self) -> u64 {
        self.weight.bytes()
    }

    pub(crate) fn weight(&self) -> &Linear {
        &self.weight
    }
}

impl Llama {
    /// The format that a draft head has if nobody names one: int4, which is read fastest. `None` where the
    /// model's own head has no more bits.
    pub fn usual_draft_format(&self) -> Option<Format> {
        let strips = self.lm_head().format().strips();
        strips.is_none_or(|strips| strips.bits() > StripFormat::Int4.bits()).then_some(Format::Int4)
    }

    /// The LM head's rows of the tokens in `shortlist` (none: all) in `format` (none: its own).
    ///
    /// # Errors
    /// If the shortlist is empty or names an unknown token, the format is ternary, or there is no memory for
    /// the copy.
    pub fn draft_head(&self, format: Option<Format>, shortlist: Option<&[u32]>) -> Result<DraftHead> {
        let vocab_size = self.config().vocab_size;
        let shortlist = shortlist.map(|tokens| {
            let mut tokens = tokens.to_vec();
            tokens.sort_unstable();
            tokens.dedup();
            tokens
        });
        if let Some(&token) = shortlist.iter().flatten().find(|&&token| token as usize >= vocab_size) {
            return Err(Error::UnknownToken { token, vocab_size });
        }
        if format == Some(Format::Ternary) {
            return Err(Error::TernaryHead);
        }
        let rows = shortlist.as_ref().map_or(vocab_size, Vec::len);
        if rows == 0 {
            return Err(Error::EmptyShortlist);
        }
        let spec = TensorSpec::new("a draft head", &[rows, self.config().hidden_size]);
        let source = Rows { head: self.lm_head(), tokens: shortlist.as_deref() };
        Ok(DraftHead {
            id: new_id(),
            model: self.id(),
            weight: Linear::take(&source, &spec, format, InputQuantization::ALL[0])?,
            shortlist,
            vocab_size,
        })
    }

    /// As [`Llama::head`], through a draft head; tokens that it does not know have −∞.
    ///
    /// # Shapes
    /// `logits`: resized to `[rows, vocab]`
    ///
    /// # Panics
    /// If `rows` leaves the tokens in flight, or the head is another model's ([`DraftHead::is_of`]).
    pub fn draft_logits(
        &self,
        head: &DraftHead,
        hidden: &Hidden,
        rows: Range<usize>,
        logits: &mut Vec<f32>,
        scratch: &mut Scratch,
    ) {
        assert!(head.is_of(self), "a draft head of this model");
        scratch.work += self.head_work(Some(head), rows.len());
        self.norm_rows(hidden, rows, scratch);
        let Scratch { normed, operand, shortlisted, .. } = scratch;
        let Some(shortlist) = &head.shortlist else {
            return head.weight.forward(normed, operand, logits);
        };
        head.weight.forward(normed, operand, shortlisted);
        logits.clear();
        logits.resize(shortlisted.len() / shortlist.len() * head.vocab_size, f32::NEG_INFINITY);
        let rows = shortlisted.chunks_exact(shortlist.len());
        for (found, logits) in rows.zip(logits.chunks_exact_mut(head.vocab_size)) {
            for (&token, &logit) in shortlist.iter().zip(found) {
                logits[token as usize] = logit;
            }
        }
    }
}

/// Some rows of a matrix that is in memory.
pub(crate) struct Rows<'a> {
    head: &'a Linear,
    tokens: Option<&'a [u32]>,
}

impl<'a> Rows<'a> {
    /// All of them.
    pub(crate) fn all(matrix: &'a Linear) -> Self {
        Self { head: matrix, tokens: None }
    }
}

impl Source for Rows<'_> {
    fn format(&self, _spec: &TensorSpec) -> Result<Format> {
        Ok(self.head.format())
    }

    fn recode(&self, spec: &TensorSpec, format: StripFormat, out: &mut [u8]) -> Result<bool> {
        if self.head.format().strips() != Some(format) {
            return Ok(false);
        }
        let (rows, strip) = (spec.shape[0], format.strip_bytes(self.head.in_features()));
        Ok(out.par_chunks_exact_mut(strip).enumerate().all(|(index, out)| {
            let rows: Vec<usize> = (index * STRIP..rows.min((index + 1) * STRIP))
                .map(|row| self.tokens.map_or(row, |tokens| tokens[row] as usize))
                .collect();
            self.head.copy_rows(&rows, out)
        }))
    }

    fn values(&self, _spec: &TensorSpec) -> Result<Box<Values<'_>>> {
        let (head, tokens, width) = (self.head, self.tokens, self.head.in_features());
        Ok(Box::new(move |first, out| {
            let mut row = Vec::with_capacity(width);
            for (index, out) in (first / width..).zip(out.chunks_exact_mut(width)) {
                row.clear();
                head.append_row(tokens.map_or(index, |tokens| tokens[index] as usize), &mut row);
                out.copy_from_slice(&row);
            }
            Ok(())
        }))
    }
}
