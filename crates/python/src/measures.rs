//! What a model is worth, as JSON that the Python layer turns into dataclasses.

use crate::errors::OrRaise;
use crate::loaded::{carried_stories, parsed, source};
use crate::model::Model;
use crate::{fork, interruptible};
use offramp_engine::{SamplingOptions, Speculate};
use offramp_eval::card::{CardFolder, CardWords, Facts, Measured, Scores};
use offramp_eval::{PerplexityOptions, SpeedOptions, SweepOptions, openings, swept_exits};
use offramp_model::checkpoint::Quantized;
use offramp_model::{CacheFormat, Formats};
use offramp_pipeline::{ModelSource, Pipeline};
use offramp_text::{CorpusOptions, TokenStream};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::{FromPyObject, PyResult, Python, pyfunction};
use serde::Serialize;
use std::path::PathBuf;

/// Tokens of the longest stories; as many for each prompt of a sweep are enough.
const STORY: u64 = 1000;

/// Perplexity at exits, over some data, as a list of scores.
///
/// Without data, over the stories that come with offramp; without exits, at every one.
#[pyfunction]
pub(crate) fn evaluate(
    py: Python<'_>,
    model: &Model,
    data: Vec<PathBuf>,
    exits: Vec<usize>,
    context: Option<usize>,
    max_tokens: Option<u64>,
) -> PyResult<String> {
    fork::check()?;
    let pipeline = &model.loaded.pipeline;
    let found = interruptible::run(py, |stop| {
        let stream = stream(pipeline, &data, max_tokens.unwrap_or(u64::MAX).saturating_add(1))?;
        let options = PerplexityOptions { exits, context, max_tokens };
        offramp_eval::evaluate(pipeline, &stream, &options, &mut |_, _| stop.leave_if_stopped())
    })?;
    json(&found.or_raise()?)
}

/// The options of a benchmark, as a dict.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct BenchmarkOptions {
    exits: Vec<usize>,
    prompt_tokens: usize,
    new_tokens: usize,
    runs: usize,
    dtype: Option<String>,
    head_dtype: Option<String>,
}

/// Speed at exits, in a copy of the model that is loaded for it.
#[pyfunction]
pub(crate) fn benchmark(py: Python<'_>, model: &Model, options: BenchmarkOptions) -> PyResult<String> {
    fork::check()?;
    let own = model.loaded.pipeline.model().formats();
    let format = |name: &Option<String>, own| name.as_deref().map_or(Ok(own), |name| parsed(name).map(Some));
    let formats = Formats {
        layers: format(&options.dtype, own.layers)?,
        head: format(&options.head_dtype, own.head)?,
        ..own
    };
    let BenchmarkOptions { exits, prompt_tokens, new_tokens, runs, .. } = options;
    let options = SpeedOptions { exits, prompt_tokens, new_tokens, runs, verify: 0 };
    let source = &model.loaded.source;
    let found = interruptible::run(py, |stop| {
        let load = || Ok(source.load(&formats)?);
        offramp_eval::speed(load, &options, &mut |_, _| stop.leave_if_stopped())
    })?;
    json(&found.or_raise()?)
}

/// The options of a sweep, as a dict.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct SweepKeys {
    exits: Vec<usize>,
    lengths: Vec<usize>,
    new_tokens: Option<usize>,
    runs: usize,
}

/// Speculation at exits and draft lengths, with copies of the layers too. Without exits, at those from which
/// the adaptive policy chooses.
#[pyfunction]
pub(crate) fn sweep(
    py: Python<'_>,
    model: &Model,
    data: Vec<PathBuf>,
    options: SweepKeys,
) -> PyResult<String> {
    /// Tokens of a prompt.
    const PROMPT: usize = 16;
    fork::check()?;
    let SweepKeys { exits, lengths, new_tokens, runs } = options;
    let pipeline = &model.loaded.pipeline;
    let config = pipeline.model().config();
    let drafts = model.loaded.drafts()?;
    let layers = py.detach(|| drafts.layers(Speculate::Auto)).or_raise()?;
    let only_copies = model.loaded.draft_format.is_some_and(|format| format.named().is_some());
    let found = interruptible::run(py, |stop| {
        let stream = stream(pipeline, &data, STORY.saturating_mul(runs as u64))?;
        let prompts = openings(&stream, pipeline.tokenizer().end_of_text(), runs, PROMPT)?;
        let [exits, copied_exits] =
            swept_exits(config.num_hidden_layers, &exits, !only_copies, layers.is_some());
        let options = SweepOptions {
            exits,
            copied_exits,
            lengths,
            new_tokens: new_tokens.unwrap_or_else(|| 128.min(config.context().saturating_sub(PROMPT)).max(2)),
            runs,
            sampling: SamplingOptions::GREEDY,
            token_limit: Some(pipeline.tokenizer().vocab_size()),
            head: drafts.head().cloned(),
            layers,
        };
        offramp_eval::sweep(pipeline.model(), &prompts, &options, &mut |_, _| stop.leave_if_stopped())
    })?;
    json(&found.or_raise()?)
}

/// Writes a model folder in another format.
#[pyfunction]
pub(crate) fn quantize(
    py: Python<'_>,
    path: PathBuf,
    out: PathBuf,
    to: &str,
    head: Option<&str>,
) -> PyResult<String> {
    fork::check()?;
    let wanted = Formats {
        layers: Some(parsed(to)?),
        head: head.map(parsed).transpose()?,
        kv_cache: CacheFormat::F32,
    };
    let found = interruptible::run(py, |stop| {
        let source = ModelSource::resolve_observed(&path, &|_| stop.leave_if_stopped())?;
        offramp_pipeline::quantize(&source, &out, &wanted, &mut |_, _| stop.leave_if_stopped())
    })?;
    let Quantized { formats, bytes_before, bytes_after } = found.or_raise()?;
    let (layers, head) = (formats.layers, formats.head);
    json(&serde_json::json!({
        "out": out, "layers": layers, "head": head, "bytes_before": bytes_before, "bytes_after": bytes_after,
    }))
}

/// Writes a model as a GGUF file; without a path, the model that comes with offramp.
#[pyfunction]
pub(crate) fn export_gguf(py: Python<'_>, path: Option<PathBuf>, out: PathBuf, kind: &str) -> PyResult<()> {
    fork::check()?;
    let known = offramp_pipeline::written_type(kind);
    let wrong =
        || PyValueError::new_err(format!("type is {kind:?}: give f32, f16, bf16, q8_0, q4_0 or tq2_0"));
    let (kind, source) = (known.ok_or_else(wrong)?, source(py, path)?);
    interruptible::run(py, |_| offramp_pipeline::export_gguf(&source, kind, &out))?.or_raise()
}

/// The options of a card, as a dict.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct CardOptions {
    data: Vec<PathBuf>,
    untouched: Vec<PathBuf>,
    run: Option<PathBuf>,
    out: Option<PathBuf>,
    runs: usize,
    exits: Vec<usize>,
    name: Option<String>,
    place: Option<String>,
    license: Option<String>,
    dataset: Option<String>,
    language: Option<String>,
    overwrite: bool,
}

/// Measures a model and writes its card; where the card is, and its numbers.
#[pyfunction]
pub(crate) fn card(py: Python<'_>, path: PathBuf, options: CardOptions) -> PyResult<String> {
    fork::check()?;
    let CardOptions { data, untouched, run, out, runs, exits, overwrite, .. } = options;
    let CardOptions { name, place, license, dataset, language, .. } = options;
    let words = CardWords { name, place, facts: Facts { license, dataset, language }, exits };
    let found = interruptible::run(py, |stop| {
        let source = ModelSource::resolve_observed(&path, &|_| stop.leave_if_stopped())?;
        let folder = CardFolder::open(source, run.as_deref(), out.as_deref(), overwrite)?;
        let pipeline = folder.source().open(&Formats::default())?;
        let score = |data: &[PathBuf], exits: Vec<usize>| -> offramp_eval::Result<Option<Scores>> {
            if data.is_empty() {
                return Ok(None);
            }
            let stream = stream(&pipeline, data, u64::MAX)?;
            let options = PerplexityOptions { exits, ..PerplexityOptions::default() };
            let exits =
                offramp_eval::evaluate(&pipeline, &stream, &options, &mut |_, _| stop.leave_if_stopped())?;
            Ok(Some(Scores { data: Scores::name(data), exits }))
        };
        let measured = Measured {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            validation: score(&data, Vec::new())?,
            untouched: score(&untouched, vec![folder.config().num_hidden_layers])?,
            speed: match runs {
                0 => None,
                runs => Some(folder.time(runs, &mut |_, _| stop.leave_if_stopped())?),
            },
        };
        let (card, _) = folder.write(&words, &measured)?;
        Ok::<_, offramp_eval::Error>(serde_json::json!({ "card": card, "measured": measured }))
    })?;
    json(&found.or_raise()?)
}

/// The text of files, or the stories that come with offramp.
fn stream(pipeline: &Pipeline, data: &[PathBuf], max_tokens: u64) -> offramp_eval::Result<TokenStream> {
    match data {
        [] => Ok(carried_stories(pipeline, max_tokens)?),
        data => offramp_eval::open_data(data, &CorpusOptions::default(), pipeline.tokenizer(), max_tokens),
    }
}

pub(crate) fn json(value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| PyRuntimeError::new_err(error.to_string()))
}
