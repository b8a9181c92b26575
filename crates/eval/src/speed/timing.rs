//! The samples themselves: prompts, tokens one by one, and several tokens in one call.

use super::MemoryProbe;
use super::{DecodeSample, ExitSpeed, SpeedOptions, Spread, VerifySample};
use crate::Result;
use offramp_engine::{Session, argmax};
use offramp_model::Llama;
use std::time::Instant;

/// New tokens of the warm-up.
const WARM_UP: usize = 2;
/// Pairs of calls that verify, in a round.
const PAIRS: usize = 2;

/// A session, and what it took so far.
pub(super) struct Timed<'m> {
    session: Session<'m>,
    prompt: Vec<u32>,
    options: SpeedOptions,
    exits: Vec<Samples>,
}

/// What one exit took.
pub(super) struct Samples {
    exit_layer: usize,
    prefill: Vec<f64>,
    decode: Vec<DecodeSample>,
    verify: Vec<VerifySample>,
}

impl<'m> Timed<'m> {
    pub(super) fn new(model: &'m Llama, options: &SpeedOptions, exits: &[usize]) -> Result<Self> {
        let vocab = model.config().vocab_size;
        // Speed does not depend on which tokens they are; these are spread over the vocabulary.
        let prompt = (0..options.prompt_tokens).map(|i| (i * 7919 % vocab) as u32).collect();
        let samples =
            |&exit_layer| Samples { exit_layer, prefill: Vec::new(), decode: Vec::new(), verify: Vec::new() };
        Ok(Self {
            session: Session::new(model, options.positions())?,
            prompt,
            options: options.clone(),
            exits: exits.iter().map(samples).collect(),
        })
    }

    /// Everything once, uncounted: caches, threads, and the memory that is asked for at first.
    pub(super) fn warm_up(&mut self) -> Result<()> {
        for e in 0..self.exits.len() {
            let (_, next) = self.prefill(self.exits[e].exit_layer)?;
            self.decode(next, self.options.new_tokens.min(WARM_UP))?;
            if self.options.verify > 0 {
                self.verify(next)?;
            }
        }
        Ok(())
    }

    /// Whether every exit has as many counted samples as were asked for.
    pub(super) fn is_complete(&self) -> bool {
        self.exits.iter().all(|exit| exit.counted() >= self.options.runs)
    }

    /// Each exit in turn; in rounds beyond those asked for, only exits that lack samples.
    pub(super) fn round(
        &mut self,
        round: usize,
        probe: &MemoryProbe,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        for e in 0..self.exits.len() {
            if self.exits[e].counted() < self.options.runs {
                self.sample(e, round, probe)?;
            }
            let done = self.exits.iter().map(|exit| exit.counted().min(self.options.runs)).sum();
            progress(done, self.options.runs * self.exits.len());
        }
        Ok(())
    }

    fn sample(&mut self, e: usize, round: usize, probe: &MemoryProbe) -> Result<()> {
        let (prefill, next) = self.prefill(self.exits[e].exit_layer)?;
        let before = probe.read();
        let seconds = self.decode(next, self.options.new_tokens)?;
        self.exits[e].decode.push(DecodeSample::new(seconds, [before, probe.read()]));
        // What needs no probe is not taken again.
        if round < self.options.runs {
            self.exits[e].prefill.push(prefill);
            for _ in 0..if self.options.verify > 0 { PAIRS } else { 0 } {
                let sample = self.verify(next)?;
                self.exits[e].verify.push(sample);
            }
        }
        Ok(())
    }

    /// Seconds from the prompt to its first token, and that token.
    fn prefill(&mut self, exit_layer: usize) -> Result<(f64, u32)> {
        self.session.truncate(0);
        self.session.set_exit_layer(exit_layer)?;
        let start = Instant::now();
        let next = argmax(self.session.feed(&self.prompt)?);
        Ok((start.elapsed().as_secs_f64(), next))
    }

    /// Seconds of `count` tokens after the prompt.
    fn decode(&mut self, mut next: u32, count: usize) -> Result<f64> {
        self.session.truncate(self.prompt.len());
        let start = Instant::now();
        for _ in 0..count {
            next = argmax(self.session.feed(&[next])?);
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn verify(&mut self, next: u32) -> Result<VerifySample> {
        let mut time = |count: usize| -> Result<f64> {
            self.session.truncate(self.prompt.len());
            let tokens = vec![next; count];
            let start = Instant::now();
            self.session.feed_each(&tokens)?;
            Ok(start.elapsed().as_secs_f64())
        };
        Ok(VerifySample { one: time(1)?, all: time(self.options.verify)? })
    }

    /// Every probe so far.
    pub(super) fn bandwidths(&self) -> Vec<f64> {
        let samples = self.exits.iter().flat_map(|exit| &exit.decode);
        samples.flat_map(|sample| [sample.bandwidth_before, sample.bandwidth_after]).collect()
    }

    /// What every exit took, in the order asked for.
    pub(super) fn into_exits(self) -> impl Iterator<Item = Samples> {
        self.exits.into_iter()
    }
}

impl Samples {
    fn counted(&self) -> usize {
        self.decode.iter().filter(|sample| sample.counted).count()
    }

    pub(super) fn summary(self, model: &Llama, options: &SpeedOptions) -> ExitSpeed {
        let (exit_layer, steady) = (self.exit_layer, self.counted() > 0);
        let positions = (options.prompt_tokens + options.new_tokens / 2) as u64;
        let cache = positions * model.kv_bytes_per_position(exit_layer);
        let bytes_per_token = model.bytes_per_token(exit_layer) + cache;
        let decode = |of: &dyn Fn(f64, &DecodeSample) -> f64| {
            let counted = self.decode.iter().filter(|sample| sample.counted || !steady);
            Spread::of(counted.map(|sample| of(options.new_tokens as f64 / sample.seconds, sample)).collect())
        };
        let bytes = bytes_per_token as f64;
        let ratios: Vec<_> = self.verify.iter().map(|sample| sample.all / sample.one).collect();
        ExitSpeed {
            exit_layer,
            prefill: Spread::of(self.prefill.iter().map(|s| options.prompt_tokens as f64 / s).collect()),
            first_token: Spread::of(self.prefill.clone()),
            decode: decode(&|rate, _| rate),
            bytes_per_token,
            bytes_per_second: decode(&|rate, _| bytes * rate),
            bandwidth_share: decode(&|rate, sample| bytes * rate / sample.bandwidth()),
            speed_up: 1.0,
            verify: (!ratios.is_empty()).then(|| Spread::of(ratios)),
            repeated: self.decode.len() - self.counted(),
            steady,
            prefill_samples: self.prefill,
            decode_samples: self.decode,
            verify_samples: self.verify,
        }
    }
}
