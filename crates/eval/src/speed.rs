//! Tokens per second at every exit: batch 1, greedy, one warm-up, then several runs.
//!
//! Machines are shared and drift, so the exits take turns within each round, and the memory's
//! bandwidth is probed before the first round and after each.

use crate::{Error, Result};
use offramp_engine::{Session, argmax, bandwidth};
use offramp_model::Llama;
use serde::Serialize;
use std::time::Instant;

/// What to measure.
#[derive(Clone, Debug)]
pub struct SpeedOptions {
    /// Exits to time; empty for the full depth alone.
    pub exits: Vec<usize>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens decoded after it.
    pub new_tokens: usize,
    /// Counted runs of each exit.
    pub runs: usize,
}

impl Default for SpeedOptions {
    fn default() -> Self {
        Self { exits: Vec::new(), prompt_tokens: 128, new_tokens: 128, runs: 5 }
    }
}

/// Median, least and most of several samples.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The middle one (of an even number, the mean of the middle two).
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// # Panics
    /// If there is no sample.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let (len, last) = (samples.len(), samples.len() - 1);
        Self { median: (samples[last / 2] + samples[len / 2]) / 2.0, min: samples[0], max: samples[last] }
    }
}

/// How fast one exit is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ExitSpeed {
    /// Layers run.
    pub exit_layer: usize,
    /// Prompt tokens per second.
    pub prefill: Spread,
    /// Decoded tokens per second.
    pub decode: Spread,
    /// Seconds from the prompt to its first token.
    pub first_token: Spread,
    /// Bytes of weights, keys and values that a decoded token reads, on average.
    pub bytes_per_token: u64,
    /// `bytes_per_token` · decoded tokens per second, over the probed bandwidth.
    pub bandwidth_share: f64,
    /// Decoded tokens per second over those of the deepest exit timed.
    pub speed_up: f64,
}

/// What a bench found.
#[derive(Clone, Debug, Serialize)]
pub struct SpeedReport {
    /// One entry for each exit, as asked.
    pub exits: Vec<ExitSpeed>,
    /// Bytes per second that the memory gave, probed in the same run.
    pub bandwidth: Spread,
    /// The instruction set in use.
    pub kernels: &'static str,
    /// Threads that shared the work.
    pub threads: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens decoded after it.
    pub new_tokens: usize,
    /// Counted runs of each exit.
    pub runs: usize,
}

/// One run of one exit, in seconds.
struct Sample {
    prefill: f64,
    decode: f64,
}

/// Times `model` at every exit asked for; `progress` hears runs done and to do.
///
/// # Errors
/// If an exit does not exist, or the tokens do not fit the model's context.
pub fn speed(
    model: &Llama,
    options: &SpeedOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<SpeedReport> {
    let exits = checked(model, options)?;
    let probe = bandwidth::Probe::default();
    let mut bandwidths = vec![probe.read()];
    let mut samples: Vec<Vec<Sample>> = exits.iter().map(|_| Vec::new()).collect();
    let rounds = options.runs + 1;
    for round in 0..rounds {
        for (e, &exit) in exits.iter().enumerate() {
            let sample = run(model, exit, options)?;
            // The first round warms caches and threads up.
            if round > 0 {
                samples[e].push(sample);
            }
            progress(round * exits.len() + e + 1, rounds * exits.len());
        }
        bandwidths.push(probe.read());
    }
    let bandwidth = Spread::of(bandwidths);
    let mut timed: Vec<ExitSpeed> = exits
        .iter()
        .zip(&samples)
        .map(|(&exit, samples)| summary(model, exit, options, samples, bandwidth.median))
        .collect();
    let deepest = timed.iter().max_by_key(|exit| exit.exit_layer).map_or(1.0, |exit| exit.decode.median);
    timed.iter_mut().for_each(|exit| exit.speed_up = exit.decode.median / deepest);
    Ok(SpeedReport {
        exits: timed,
        bandwidth,
        kernels: offramp_engine::kernels(),
        threads: offramp_engine::threads(),
        prompt_tokens: options.prompt_tokens,
        new_tokens: options.new_tokens,
        runs: options.runs,
    })
}

fn checked(model: &Llama, options: &SpeedOptions) -> Result<Vec<usize>> {
    let config = model.config();
    options.exits.iter().try_for_each(|&exit| config.check_exit_layer(exit))?;
    let (prompt, new) = (options.prompt_tokens, options.new_tokens);
    if prompt == 0 || new == 0 || options.runs == 0 {
        let message = "prompt tokens, new tokens and runs must be at least 1 each".to_string();
        return Err(Error::Options(message));
    }
    let limit = config.max_position_embeddings;
    if prompt.saturating_add(new) > limit {
        let message =
            format!("{prompt} prompt and {new} new tokens do not fit the model's context of {limit}");
        return Err(Error::Options(message));
    }
    Ok(if options.exits.is_empty() { vec![config.num_hidden_layers] } else { options.exits.clone() })
}

fn run(model: &Llama, exit_layer: usize, options: &SpeedOptions) -> Result<Sample> {
    let vocab = model.config().vocab_size;
    let mut session = Session::new(model, options.prompt_tokens + options.new_tokens)?;
    session.set_exit_layer(exit_layer)?;
    // Speed does not depend on which tokens they are; these are spread over the vocabulary.
    let prompt: Vec<u32> = (0..options.prompt_tokens).map(|i| (i * 7919 % vocab) as u32).collect();
    let start = Instant::now();
    let mut next = argmax(session.feed(&prompt)?);
    let prefill = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 0..options.new_tokens {
        next = argmax(session.feed(&[next])?);
    }
    Ok(Sample { prefill, decode: start.elapsed().as_secs_f64() })
}

fn summary(
    model: &Llama,
    exit_layer: usize,
    options: &SpeedOptions,
    samples: &[Sample],
    bandwidth: f64,
) -> ExitSpeed {
    let spread = |of: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(of).collect());
    let decode = spread(&|sample| options.new_tokens as f64 / sample.decode);
    let positions = (options.prompt_tokens + options.new_tokens / 2) as u64;
    let cache = positions * model.kv_bytes_per_position(exit_layer);
    let bytes_per_token = model.bytes_per_token(exit_layer) + cache;
    ExitSpeed {
        exit_layer,
        prefill: spread(&|sample| options.prompt_tokens as f64 / sample.prefill),
        decode,
        first_token: spread(&|sample| sample.prefill),
        bytes_per_token,
        bandwidth_share: bytes_per_token as f64 * decode.median / bandwidth,
        speed_up: 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn a_spread_is_its_middle_and_ends() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}
