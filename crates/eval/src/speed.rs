//! Tokens per second at every exit: batch 1, greedy, one warm-up, then several samples.
//!
//! Machines are shared and drift, so the exits take turns, token by token. The memory bandwidth is probed
//! before and after every round of decoding, and a round in which it changed is repeated. The processor time
//! of other programs is measured too.

mod timing;

use crate::others::ProcessorTime;
use crate::{Error, Result, memory};
use offramp_engine::bandwidth;
use offramp_model::{Formats, Llama, Storage};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The most rounds per requested round: repetition must end.
const PATIENCE: usize = 3;

/// The options of a bench.
#[derive(Clone, Debug)]
pub struct SpeedOptions {
    /// Exits to time; if empty, the full depth alone.
    pub exits: Vec<usize>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens decoded after the prompt.
    pub new_tokens: usize,
    /// Counted samples of each exit.
    pub runs: usize,
    /// Tokens of a call that verifies; 0 for no such call.
    pub verify: usize,
}

impl Default for SpeedOptions {
    fn default() -> Self {
        Self { exits: Vec::new(), prompt_tokens: 128, new_tokens: 128, runs: 5, verify: 6 }
    }
}

impl SpeedOptions {
    /// The positions that a session needs.
    pub fn positions(&self) -> usize {
        self.prompt_tokens.saturating_add(self.new_tokens.max(self.verify))
    }
}

/// The median, minimum and maximum of several samples.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Spread {
    /// The median (of an even number, the mean of the middle two).
    pub median: f64,
    /// The minimum.
    pub min: f64,
    /// The maximum.
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

/// New tokens, one by one and in turn with other exits, between two probes of the memory.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DecodeSample {
    /// The seconds of the tokens.
    pub seconds: f64,
    /// The memory bandwidth before, in bytes per second.
    pub bandwidth_before: f64,
    /// The memory bandwidth after.
    pub bandwidth_after: f64,
    /// Whether the two probes agree.
    pub counted: bool,
}

impl DecodeSample {
    /// If the probes differ by more than a tenth of the larger, the machine changed in between.
    const AGREEMENT: f64 = 0.1;

    fn new(seconds: f64, [before, after]: [f64; 2]) -> Self {
        let counted = (before - after).abs() <= Self::AGREEMENT * before.max(after);
        Self { seconds, bandwidth_before: before, bandwidth_after: after, counted }
    }

    fn bandwidth(&self) -> f64 {
        (self.bandwidth_before + self.bandwidth_after) / 2.0
    }
}

/// One call for several tokens after the prompt, and one for the first of them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct VerifySample {
    /// The seconds of the call for one token.
    pub one: f64,
    /// The seconds of the call for all.
    pub all: f64,
}

/// The speed of one exit.
#[derive(Clone, Debug, Serialize)]
pub struct ExitSpeed {
    /// The exit layer.
    pub exit_layer: usize,
    /// Prompt tokens per second.
    pub prefill: Spread,
    /// Seconds from the prompt to its first token.
    pub first_token: Spread,
    /// Decoded tokens per second.
    pub decode: Spread,
    /// The mean bytes that a decoded token reads: weights (codes and scales), keys and values.
    pub bytes_per_token: u64,
    /// Bytes that decoding reads per second.
    pub bytes_per_second: Spread,
    /// The same, over the memory bandwidth beside each sample.
    pub bandwidth_share: Spread,
    /// Decoded tokens per second over those of the deepest timed exit: the median of the rounds' ratios.
    pub speed_up: f64,
    /// The time of a call for several tokens over that for one; `None` if it was not timed.
    pub verify: Option<Spread>,
    /// The number of decode samples that were repeated because the memory bandwidth changed.
    pub repeated: usize,
    /// Whether any sample had a steady memory bandwidth. If none had, all samples count.
    pub steady: bool,
    /// The seconds of every prompt.
    pub prefill_samples: Vec<f64>,
    /// Every decode sample, also those that do not count.
    pub decode_samples: Vec<DecodeSample>,
    /// Every pair of calls.
    pub verify_samples: Vec<VerifySample>,
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryUse {
    /// All weights.
    pub weights: u64,
    /// Keys and values of all positions.
    pub kv_cache: u64,
    /// The peak memory of the process from loading to the end of the warm-up, where the system reports it.
    pub peak: Option<u64>,
}

/// The result of a bench.
#[derive(Clone, Debug, Serialize)]
pub struct SpeedReport {
    /// The formats of the layers, the head and the cache.
    pub formats: Formats,
    /// One entry for each exit, as asked.
    pub exits: Vec<ExitSpeed>,
    /// The memory bandwidth over all probes, in bytes per second.
    pub bandwidth: Spread,
    /// The memory of the model, without the probe's own buffer.
    pub memory: MemoryUse,
    /// The instruction set in use.
    pub kernels: &'static str,
    /// The number of threads.
    pub threads: usize,
    /// The share of these threads' processors that other programs used meanwhile, where the system reports
    /// it.
    pub taken_by_others: Option<f64>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens decoded after the prompt.
    pub new_tokens: usize,
    /// Tokens of a call that verifies.
    pub verify_tokens: usize,
    /// The requested samples of each exit.
    pub runs: usize,
}

impl SpeedReport {
    /// If other programs use this share of the processors, the machine counts as busy.
    const BUSY: f64 = 0.1;

    /// The share that others used, if it was large enough to make the speeds too low.
    pub fn busy(&self) -> Option<f64> {
        self.taken_by_others.filter(|&taken| taken >= Self::BUSY)
    }
}

/// A probe over memory like that of weights.
pub type MemoryProbe = bandwidth::Probe<Storage<f32>>;

/// A probe of the memory bandwidth, on large pages where the system has them, as for weights.
///
/// # Errors
/// If there is not enough memory for its buffer.
pub fn memory_probe() -> Result<MemoryProbe> {
    let floats = Storage::filled(bandwidth::FLOATS, 1.0);
    let no_room =
        |error| Error::Options(format!("no memory to measure the bandwidth on: {error}: free some"));
    Ok(bandwidth::Probe::new(floats.map_err(no_room)?))
}

/// Times a model at every exit of the options. `progress` gets the samples taken and the total.
///
/// `load` returns the model. It is called first, so that its memory is measured too.
///
/// # Errors
/// If there is no model, an exit does not exist, or the tokens do not fit the model's context.
pub fn speed(
    load: impl FnOnce() -> Result<Llama>,
    options: &SpeedOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<SpeedReport> {
    memory::forget_peak();
    let model = Arc::new(load()?);
    let exits = checked(&model, options)?;
    let mut timed = timing::TimedSession::new(&model, options, &exits)?;
    timed.warm_up()?;
    let layers = model.config().num_hidden_layers;
    let memory = MemoryUse {
        weights: model.bytes(),
        kv_cache: options.positions() as u64 * model.kv_bytes_per_position(layers),
        peak: memory::peak_memory(),
    };
    let probe = memory_probe()?;
    let (threads, before) = (offramp_engine::threads(), ProcessorTime::now());
    for round in 0..PATIENCE * options.runs {
        if timed.is_complete() {
            break;
        }
        timed.round(round, &probe, progress)?;
    }
    let taken = before.zip(ProcessorTime::now()).and_then(|(before, now)| now.taken_since(before, threads));
    let bandwidth = Spread::of(timed.bandwidths());
    let mut found: Vec<_> = timed.into_exits().map(|samples| samples.summary(&model, options)).collect();
    let deepest = found.iter().max_by_key(|exit| exit.exit_layer).map(|exit| exit.decode_samples.clone());
    for exit in &mut found {
        exit.speed_up = speed_up(&exit.decode_samples, deepest.as_deref().unwrap_or_default());
    }
    Ok(SpeedReport {
        formats: model.formats(),
        exits: found,
        bandwidth,
        memory,
        kernels: offramp_engine::kernels(),
        threads,
        taken_by_others: taken,
        prompt_tokens: options.prompt_tokens,
        new_tokens: options.new_tokens,
        verify_tokens: options.verify,
        runs: options.runs,
    })
}

/// The median of the rounds' ratios, over the rounds that count, or over all if none does.
fn speed_up(exit: &[DecodeSample], deepest: &[DecodeSample]) -> f64 {
    let steady = exit.iter().any(|sample| sample.counted);
    let rounds = exit.iter().zip(deepest).filter(|(sample, _)| sample.counted || !steady);
    Spread::of(rounds.map(|(exit, deepest)| deepest.seconds / exit.seconds).collect()).median
}

fn checked(model: &Llama, options: &SpeedOptions) -> Result<Vec<usize>> {
    let config = model.config();
    options.exits.iter().try_for_each(|&exit| config.check_exit_layer(exit))?;
    let SpeedOptions { prompt_tokens: prompt, new_tokens: new, verify, runs, .. } = *options;
    if prompt == 0 || new == 0 || runs == 0 {
        let message = "prompt tokens, new tokens and runs must be at least 1 each".to_string();
        return Err(Error::Options(message));
    }
    let limit = config.context();
    if options.positions() > limit {
        let message = format!(
            "{prompt} prompt and {} new tokens do not fit the model's context of {limit}: ask for fewer",
            new.max(verify)
        );
        return Err(Error::Options(message));
    }
    Ok(if options.exits.is_empty() { vec![config.num_hidden_layers] } else { options.exits.clone() })
}

#[cfg(test)]
mod tests {
    use super::{DecodeSample, Spread, speed_up};

    #[test]
    fn a_spread_is_its_middle_and_ends() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }

    #[test]
    fn a_sample_counts_if_the_memory_was_steady() {
        let counted = |probes| DecodeSample::new(1.0, probes).counted;
        assert!(counted([30.0, 27.5]) && counted([27.5, 30.0]));
        assert!(!counted([30.0, 26.5]) && !counted([26.5, 30.0]));
    }
    /// A machine that is ten times slower in one round changes no speed-up.
    #[test]
    fn a_speed_up_is_the_middle_of_what_the_rounds_found() {
        let of = |rounds: [(f64, bool); 3]| {
            rounds.map(|(seconds, counted)| {
                DecodeSample::new(seconds, if counted { [1.0, 1.0] } else { [1.0, 2.0] })
            })
        };
        let exit = of([(1.0, true), (20.0, true), (3.0, true)]);
        assert_eq!(speed_up(&exit, &of([(2.0, true), (40.0, true), (15.0, true)])), 2.0);
        let exit = of([(1.0, true), (1.0, false), (1.0, false)]);
        assert_eq!(speed_up(&exit, &of([(2.0, true), (3.0, false), (4.0, false)])), 2.0, "one round counts");
        let exit = of([(1.0, false); 3]);
        assert_eq!(
            speed_up(&exit, &of([(2.0, false), (3.0, false), (4.0, false)])),
            3.0,
            "none does: all do"
        );
    }
}
