//! One validation, in windows of the training's sequence length, as `eval` measures. The ranks share its
//! batches, and its sums have one order whoever made them.

use super::trainer::Trainer;
use crate::error::Result;
use crate::network::Batch;
use offramp_model::journal::{ExitLoss, ValidationRecord};
use offramp_ranks::Ranks;
use offramp_text::{TokenStream, Tokenizer, Windows};
use std::f64::consts::LN_2;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a validation measures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validation<'a> {
    /// Exit layers, the full model last.
    pub(super) exits: &'a [usize],
    /// Tokens to measure at most; 0 is the whole split.
    pub(super) max_tokens: u64,
    pub(super) stream: &'a TokenStream,
    pub(super) tokenizer: &'a Tokenizer,
}

/// What a batch adds beside the nats of each exit: its tokens and its bytes.
const COUNTS: usize = 2;

impl Trainer {
    /// Measures the validation split, together with the other ranks. Returns none if `stop` becomes true on
    /// one of them before it is done.
    pub(super) fn validate(
        &mut self,
        validation: Validation<'_>,
        ranks: &mut Ranks,
        stop: &AtomicBool,
    ) -> Result<Option<ValidationRecord>> {
        let Validation { exits, max_tokens, stream, .. } = validation;
        let length = self.training.sequence_length;
        let windows = Windows::new(stream, length)?;
        let wanted = match max_tokens {
            0 => windows.len(),
            tokens => windows.len().min(tokens.div_ceil(length as u64)),
        };
        let clock = self.network.clock().clone(); // the time of a validation belongs to no step
        self.rounding.round(&self.weights);
        let batches = self.batches(&windows, wanted)?;
        let width = exits.len() + COUNTS;
        let mut table = vec![0.0; batches.len() * width + 1]; // [batches, width], and whether a rank stops
        for (index, batch) in batches.into_iter().enumerate() {
            if index % ranks.size() != ranks.rank() {
                continue;
            }
            if stop.load(Ordering::Relaxed) {
                *table.last_mut().expect("it has a last number") = 1.0;
                break;
            }
            self.measure(validation, &windows, batch, &mut table[index * width..][..width])?;
        }
        self.network.reset_clock(clock);
        let tokens = self.training.batch_size * length;
        self.inputs.resize(tokens, 0);
        self.labels.resize(tokens, 0);
        ranks.sum(&mut table); // a number is one rank's, and zero elsewhere
        if table.pop() != Some(0.0) {
            return Ok(None);
        }
        let mut sums = vec![0.0; width];
        for row in table.chunks(width) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        let (nats, counts) = sums.split_at(exits.len());
        let full = nats.last().copied().unwrap_or(f64::NAN);
        let mean = |(&exit_layer, nats): (&usize, &f64)| ExitLoss { exit_layer, loss: nats / counts[0] };
        Ok(Some(ValidationRecord {
            step: self.state.step,
            exits: exits.iter().zip(nats).map(mean).collect(),
            bits_per_byte: full / LN_2 / counts[1],
        }))
    }

    /// The windows of each batch. A window that is shorter than the others is alone in its batch.
    fn batches(&self, windows: &Windows<'_>, wanted: u64) -> Result<Vec<Range<u64>>> {
        let mut whole = wanted;
        if wanted > 0 && windows.get(wanted - 1)?.labels().len() < self.training.sequence_length {
            whole -= 1;
        }
        let each = self.training.batch_size;
        let starts = (0..whole).step_by(each);
        let mut batches: Vec<_> = starts.map(|start| start..(start + each as u64).min(whole)).collect();
        batches.extend((whole < wanted).then_some(whole..wanted));
        Ok(batches)
    }

    /// Adds to `row` the nats of each exit over some windows, their tokens and their bytes.
    fn measure(
        &mut self,
        validation: Validation<'_>,
        windows: &Windows<'_>,
        batch: Range<u64>,
        row: &mut [f64],
    ) -> Result<()> {
        let Self { network, rounding, weights, inputs, labels, .. } = self;
        inputs.clear();
        labels.clear();
        for index in batch {
            let window = windows.get(index)?;
            inputs.extend_from_slice(window.inputs());
            labels.extend_from_slice(window.labels());
        }
        let found = network.nats(rounding.rounded(weights), Batch { inputs, labels }, validation.exits);
        let (nats, counts) = row.split_at_mut(validation.exits.len());
        nats.iter_mut().zip(found).for_each(|(nats, found)| *nats += found);
        let bytes =
            |(&input, &label)| validation.tokenizer.token_bytes_after(input, label).unwrap_or(0) as u64;
        counts[0] += labels.len() as f64;
        counts[1] += inputs.iter().zip(&*labels).map(bytes).sum::<u64>() as f64;
        Ok(())
    }
}
