//! Measures the tokens per second of many texts at once.

use crate::others::ProcessorTime;
use crate::speed::Spread;
use crate::{Error, Result};
use offramp_engine::{
    GenerateOptions, Request, SamplingOptions, Scheduler, SchedulerOptions, Speculation, Statistics,
};
use offramp_model::{Formats, Llama};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// The options of a measurement.
#[derive(Clone, Debug)]
pub struct ManyTextsOptions {
    /// Numbers of texts at once, each measured separately.
    pub texts: Vec<usize>,
    /// Tokens of each text's prompt.
    pub prompt_tokens: usize,
    /// Tokens of each text after it.
    pub new_tokens: usize,
    /// Samples of each number of texts; the numbers take turns.
    pub runs: usize,
    /// The number of layers that run.
    pub exit_layer: usize,
    /// The speculation of every text.
    pub speculation: Speculation,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub struct ManyTextsReport {
    /// The model's number formats.
    pub formats: Formats,
    /// A row for each number of texts.
    pub texts: Vec<ManyTextsSpeed>,
    /// The instruction set in use.
    pub kernels: &'static str,
    /// The number of threads.
    pub threads: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens of each text after it.
    pub new_tokens: usize,
    /// Samples.
    pub runs: usize,
    /// The share of the processors that other programs used meanwhile, where the system reports it.
    pub taken_by_others: Option<f64>,
}

/// The speed of one number of texts.
#[derive(Clone, Debug, Serialize)]
pub struct ManyTextsSpeed {
    /// The number of texts.
    pub texts: usize,
    /// Tokens of all prompts per second.
    pub prefill: Spread,
    /// New tokens of all texts per second, after the first of each.
    pub decode: Spread,
    /// New tokens of each text per second.
    pub decode_of_each: Spread,
    /// Its decoding speed over that of the first row.
    pub speed_up: f64,
    /// Share of the drafted tokens that were accepted; none if none was drafted.
    pub acceptance_rate: Option<f64>,
    /// Decoded tokens per second, one sample after the other.
    pub decode_samples: Vec<f64>,
}

/// One sample.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    prefill: f64,
    decode: f64,
    drafted: usize,
    accepted: usize,
}

/// Runs texts together and times them. All prompts go through the model in the first step. They all differ,
/// so no blocks are shared. Then every text decodes to its end. `progress` gets the samples taken and the
/// total.
///
/// # Errors
/// If a number is 0, the tokens do not fit the model's context, or there is no memory for them.
pub fn many_texts(
    model: &Arc<Llama>,
    options: &ManyTextsOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<ManyTextsReport> {
    let all = options.texts.len() * options.runs;
    let none = options.texts.contains(&0) || options.texts.is_empty() || options.runs == 0;
    if none || options.prompt_tokens == 0 || options.new_tokens < 2 {
        let found = format!("{options:?}");
        return Err(Error::Options(format!(
            "{found}: give 1 or more texts, prompt tokens and runs, and 2 or more new tokens"
        )));
    }
    let (tokens, context) = (options.prompt_tokens + options.new_tokens, model.config().context());
    if tokens > context {
        return Err(offramp_engine::Error::ContextFull { tokens, context }.into());
    }
    let before = ProcessorTime::now();
    let mut samples = vec![Vec::new(); options.texts.len()];
    let mut speculation = vec![options.speculation.clone(); options.texts.len()];
    for (texts, speculation) in options.texts.iter().zip(&mut speculation) {
        sample(model, options, (*texts).min(2), speculation)?; // a warm-up
    }
    for run in 0..options.runs {
        for (index, &texts) in options.texts.iter().enumerate() {
            samples[index].push(sample(model, options, texts, &mut speculation[index])?);
            progress(run * options.texts.len() + index + 1, all);
        }
    }
    let threads = offramp_engine::threads();
    let taken = before.zip(ProcessorTime::now()).and_then(|(before, now)| now.taken_since(before, threads));
    let mut rows: Vec<ManyTextsSpeed> =
        options.texts.iter().zip(samples).map(|(&texts, samples)| speed_of(texts, &samples)).collect();
    let first = rows.first().map_or(1.0, |row| row.decode.median);
    rows.iter_mut().for_each(|row| row.speed_up = row.decode.median / first);
    Ok(ManyTextsReport {
        formats: model.formats(),
        texts: rows,
        kernels: offramp_engine::kernels(),
        threads,
        prompt_tokens: options.prompt_tokens,
        new_tokens: options.new_tokens,
        runs: options.runs,
        taken_by_others: taken,
    })
}

fn sample(
    model: &Arc<Llama>,
    options: &ManyTextsOptions,
    texts: usize,
    speculation: &mut Speculation,
) -> Result<Sample> {
    let positions = (options.prompt_tokens + options.new_tokens).next_multiple_of(32) * texts;
    let mut scheduler = Scheduler::new(
        model,
        SchedulerOptions {
            kv_positions: positions,
            max_num_batched_tokens: options.prompt_tokens * texts + texts,
            max_num_seqs: texts,
            prefix_caching: false, // every text is to be run
        },
    )?;
    let vocab = model.config().vocab_size;
    for text in 0..texts {
        // Speed does not depend on which tokens they are; these are spread over the vocabulary.
        let prompt = (0..options.prompt_tokens).map(|i| ((i * 7919 + text * 104_729) % vocab) as u32);
        let generate = GenerateOptions {
            max_new_tokens: options.new_tokens,
            sampling: SamplingOptions::default(),
            ..GenerateOptions::default()
        };
        scheduler.add(Request {
            prompt: prompt.collect(),
            exit_layer: options.exit_layer,
            confidence: None,
            speculation: speculation.clone(),
            options: generate,
        })?;
    }
    let start = Instant::now();
    let mut found = Sample::default();
    scheduler.step();
    let prefilled = start.elapsed().as_secs_f64();
    while !scheduler.is_idle() {
        for ended in scheduler.step().into_iter().filter_map(|progressed| progressed.ended) {
            let Statistics { drafted, accepted, .. } = ended?.statistics;
            found.drafted += drafted;
            found.accepted += accepted;
        }
    }
    let decoded = start.elapsed().as_secs_f64() - prefilled;
    if let Some(learnt) = scheduler.learnt() {
        *speculation = learnt.clone(); // as in a server, whose next texts know it
    }
    found.prefill = (texts * options.prompt_tokens) as f64 / prefilled;
    found.decode = (texts * (options.new_tokens - 1)) as f64 / decoded;
    Ok(found)
}

fn speed_of(texts: usize, samples: &[Sample]) -> ManyTextsSpeed {
    let spread = |of: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(of).collect());
    let drafted: usize = samples.iter().map(|sample| sample.drafted).sum();
    let accepted: usize = samples.iter().map(|sample| sample.accepted).sum();
    ManyTextsSpeed {
        texts,
        prefill: spread(&|sample| sample.prefill),
        decode: spread(&|sample| sample.decode),
        decode_of_each: spread(&|sample| sample.decode / texts as f64),
        speed_up: 1.0,
        acceptance_rate: (drafted > 0).then(|| accepted as f64 / drafted as f64),
        decode_samples: samples.iter().map(|sample| sample.decode).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offramp_model::Config;
    use std::path::Path;

    fn options(texts: &[usize]) -> ManyTextsOptions {
        ManyTextsOptions {
            texts: texts.to_vec(),
            prompt_tokens: 9,
            new_tokens: 5,
            runs: 2,
            exit_layer: 2,
            speculation: Speculation::off(),
        }
    }

    #[test]
    fn every_number_of_texts_is_measured() {
        let config = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "vocab_size": 30,
            "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32}"#;
        let config = Config::from_json(config, Path::new("config.json")).expect("a valid config");
        let model = Arc::new(Llama::random(config, 1, &Formats::default()).expect("a small model"));
        let mut heard = Vec::new();
        let report =
            many_texts(&model, &options(&[1, 3]), &mut |done, all| heard.push((done, all))).expect("room");
        assert_eq!(heard, [(1, 4), (2, 4), (3, 4), (4, 4)]);
        for (row, texts) in report.texts.iter().zip([1, 3]) {
            assert_eq!((row.texts, row.decode_samples.len()), (texts, 2));
            assert!(row.decode.median > 0.0 && row.prefill.median > 0.0);
        }
        assert_eq!(report.texts[0].speed_up, 1.0);
        for bad in [options(&[0]), options(&[]), ManyTextsOptions { new_tokens: 30, ..options(&[1]) }] {
            let error = many_texts(&model, &bad, &mut |_, _| ()).expect_err("refused").to_string();
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
