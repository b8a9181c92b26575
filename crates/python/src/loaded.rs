//! A model with its tokenizer, and what its texts share.

use crate::errors::OrRaise;
use crate::interruptible::{self, Stop};
use offramp_engine::ConfidenceExit;
use offramp_eval::{CalibrationOptions, calibrate};
use offramp_models::{TINYSTORIES_24, stories};
use offramp_pipeline::{Carried, ChatTemplate, DraftFormat, Drafts, ModelSource, Pipeline};
use offramp_text::TokenStream;
use pyo3::exceptions::PyValueError;
use pyo3::{PyResult, Python};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// About this many tokens of text calibrate an agreement.
const CALIBRATION_TOKENS: u64 = 8192;
/// Agreements are rounded up to hundredths, so that there are few.
const STEPS: f64 = 100.0;

/// What all texts of a model share.
pub(crate) struct Loaded {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) source: ModelSource,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) draft_format: Option<DraftFormat>,
    pub(crate) drafts: OnceLock<Drafts>,
    pub(crate) policies: Mutex<BTreeMap<u32, ConfidenceExit>>,
}

/// The model at a path or of a name on the hub, or the one that comes with offramp.
pub(crate) fn source(py: Python<'_>, path: Option<PathBuf>) -> PyResult<ModelSource> {
    let model = TINYSTORIES_24;
    let (name, config) = (model.name, model.config);
    let carried = Carried { name, config, weights: model.weights, tokenizer: model.tokenizer };
    let Some(path) = path else { return Ok(ModelSource::Carried(carried)) };
    let find = |stop: &Stop| ModelSource::resolve_observed(&path, &|_| stop.leave_if_stopped());
    interruptible::run(py, find)?.or_raise()
}

/// A number format by its name.
pub(crate) fn parsed<T: FromStr<Err: std::error::Error + 'static>>(name: &str) -> PyResult<T> {
    name.parse().or_raise()
}

impl Loaded {
    /// The tokens that end an answer: the folder's, and the template's end of a turn.
    pub(crate) fn chat_stop_tokens(&self) -> Vec<u32> {
        let mut ends = self.pipeline.stop_tokens().to_vec();
        let named = self.template.as_ref().and_then(|template| template.special_token("eos_token"));
        let end = named.and_then(|name| self.pipeline.tokenizer().token_id(name));
        ends.extend(end.filter(|id| !self.pipeline.stop_tokens().contains(id)));
        ends
    }

    /// What drafts: its head is made when the first text asks for drafts.
    pub(crate) fn drafts(&self) -> PyResult<&Drafts> {
        if let Some(made) = self.drafts.get() {
            return Ok(made);
        }
        let made = Drafts::usual(self.pipeline.model(), self.draft_format).or_raise()?;
        Ok(self.drafts.get_or_init(|| made))
    }

    /// The policy that leaves early with this agreement, calibrated on stories.
    pub(crate) fn policy(&self, py: Python<'_>, agreement: f64) -> PyResult<ConfidenceExit> {
        if !(0.5..=1.0).contains(&agreement) {
            return Err(PyValueError::new_err(format!(
                "agreement is {agreement}: give a share between 0.5 and 1, such as 0.98"
            )));
        }
        let step = (agreement * STEPS).ceil() as u32;
        if let Some(known) = self.policies.lock().unwrap_or_else(PoisonError::into_inner).get(&step) {
            return Ok(known.clone());
        }
        let policy = interruptible::run(py, |stop| {
            let stream = carried_stories(&self.pipeline, CALIBRATION_TOKENS + 1)?;
            let exits = vec![(2 * self.pipeline.model().config().num_hidden_layers / 3).max(1)];
            let (agreement, max_tokens) = (f64::from(step) / STEPS, Some(CALIBRATION_TOKENS));
            let options = CalibrationOptions { exits, agreement, context: None, max_tokens };
            let found =
                calibrate(self.pipeline.model(), &stream, &options, &mut |_, _| stop.leave_if_stopped());
            Ok::<_, offramp_eval::Error>(found?.policy())
        })?;
        let policy = policy.or_raise()?;
        self.policies.lock().unwrap_or_else(PoisonError::into_inner).insert(step, policy.clone());
        Ok(policy)
    }
}

/// About `max_tokens` of the stories that come with offramp.
pub(crate) fn carried_stories(pipeline: &Pipeline, max_tokens: u64) -> offramp_text::Result<TokenStream> {
    let stories = stories().map(|story| Ok(story.to_owned()));
    TokenStream::from_stories(stories, Path::new("stories"), pipeline.tokenizer(), max_tokens)
}
