//! Takes the samples: prompts, tokens one by one, and several tokens in one call.

use super::MemoryProbe;
use super::{DecodeSample, ExitSpeed, SpeedOptions, Spread, VerifySample};
use crate::Result;
use offramp_engine::{Session, Workspace, argmax};
use offramp_model::Llama;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// New tokens of the warm-up.
const WARM_UP: usize = 2;
/// Pairs of verifying calls in a round.
const PAIRS: usize = 2;

/// A session and its times so far.
pub(super) struct TimedSession {
    session: Session,
    workspace: Workspace,
    /// The prompt, then the tokens that are decoded.
    tokens: Vec<u32>,
    options: SpeedOptions,
    exits: Vec<Samples>,
    /// The indices of the exits, the shallowest first: each finds the keys and values of those before it in
    /// the cache.
    turns: Vec<usize>,
}

/// The samples of one exit.
pub(super) struct Samples {
    exit_layer: usize,
    prefill: Vec<f64>,
    decode: Vec<DecodeSample>,
    verify: Vec<VerifySample>,
}

impl TimedSession {
    pub(super) fn new(model: &Arc<Llama>, options: &SpeedOptions, exits: &[usize]) -> Result<Self> {
        let vocab = model.config().vocab_size;
        // Speed does not depend on which tokens these are; they are spread over the vocabulary.
        let tokens =
            (0..options.prompt_tokens + options.new_tokens).map(|i| (i * 7919 % vocab) as u32).collect();
        let mut turns: Vec<_> = (0..exits.len()).collect();
        turns.sort_by_key(|&e| exits[e]);
        let samples =
            |&exit_layer| Samples { exit_layer, prefill: Vec::new(), decode: Vec::new(), verify: Vec::new() };
        Ok(Self {
            session: Session::new(model, options.positions())?,
            workspace: Workspace::new(),
            tokens,
            options: options.clone(),
            exits: exits.iter().map(samples).collect(),
            turns,
        })
    }

    /// Runs everything once, uncounted: caches, threads, first allocations.
    pub(super) fn warm_up(&mut self) -> Result<()> {
        self.prefill()?;
        self.decode(self.options.new_tokens.min(WARM_UP), &mut |_| ())?;
        for e in self.turns.clone() {
            if self.options.verify > 0 {
                self.verify(e)?;
            }
        }
        Ok(())
    }

    /// Whether enough samples count.
    pub(super) fn is_complete(&self) -> bool {
        self.counted() >= self.options.runs
    }

    /// The rounds that count: a round counts for all exits or for none.
    fn counted(&self) -> usize {
        self.exits.first().map_or(self.options.runs, Samples::counted)
    }

    /// Times all exits in turn.
    pub(super) fn round(
        &mut self,
        round: usize,
        probe: &MemoryProbe,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        let prefill = self.prefill()?;
        let before = probe.read();
        let (exits, runs, new_tokens) = (self.exits.len(), self.options.runs, self.options.new_tokens);
        let counted = self.counted();
        let decode = self.decode(new_tokens, &mut |done| {
            progress((counted * exits + exits * done / new_tokens).min(runs * exits), runs * exits);
        })?;
        let probes = [before, probe.read()];
        for (exit, seconds) in self.exits.iter_mut().zip(decode) {
            exit.decode.push(DecodeSample::new(seconds, probes));
        }
        // Samples that need no probe are not repeated.
        if round < self.options.runs {
            self.exits.iter_mut().zip(prefill).for_each(|(exit, seconds)| exit.prefill.push(seconds));
            for _ in 0..if self.options.verify > 0 { PAIRS } else { 0 } {
                for e in self.turns.clone() {
                    let sample = self.verify(e)?;
                    self.exits[e].verify.push(sample);
                }
            }
        }
        progress(self.counted().min(runs) * exits, runs * exits);
        Ok(())
    }

    /// The seconds of each exit from the prompt to its first token. The deepest exit comes last, so that all
    /// find their keys and values afterwards.
    fn prefill(&mut self) -> Result<Vec<f64>> {
        let mut seconds = vec![0.0; self.exits.len()];
        for &e in &self.turns {
            self.session.truncate(0);
            self.session.set_exit_layer(self.exits[e].exit_layer)?;
            let start = Instant::now();
            black_box(argmax(
                self.session.feed(&self.tokens[..self.options.prompt_tokens], &mut self.workspace)?,
            ));
            seconds[e] = start.elapsed().as_secs_f64();
        }
        Ok(seconds)
    }

    /// The seconds of each exit for `count` tokens after the prompt, with exits in turn; `progress` gets the
    /// number of tokens.
    fn decode(&mut self, count: usize, progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>> {
        let mut seconds = vec![0.0; self.exits.len()];
        for done in 0..count {
            let position = self.options.prompt_tokens + done;
            for &e in &self.turns {
                self.session.truncate(position);
                self.session.set_exit_layer(self.exits[e].exit_layer)?;
                let start = Instant::now();
                black_box(argmax(self.session.feed(&self.tokens[position..=position], &mut self.workspace)?));
                seconds[e] += start.elapsed().as_secs_f64();
            }
            progress(done + 1);
        }
        Ok(seconds)
    }

    fn verify(&mut self, e: usize) -> Result<VerifySample> {
        self.session.set_exit_layer(self.exits[e].exit_layer)?;
        let mut time = |count: usize| -> Result<f64> {
            self.session.truncate(self.options.prompt_tokens);
            let tokens = vec![self.tokens[0]; count];
            let start = Instant::now();
            self.session.feed_each(&tokens, &mut self.workspace)?;
            Ok(start.elapsed().as_secs_f64())
        };
        Ok(VerifySample { one: time(1)?, all: time(self.options.verify)? })
    }

    /// Every probe so far.
    pub(super) fn bandwidths(&self) -> Vec<f64> {
        let samples = self.exits.iter().flat_map(|exit| &exit.decode);
        samples.flat_map(|sample| [sample.bandwidth_before, sample.bandwidth_after]).collect()
    }

    /// The samples of every exit, in the order of the options.
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
