//! A text that is being generated, step by step.

use crate::errors::exception;
use crate::fork;
use crate::worker::{Event, Listener};
use offramp_engine::{Logprobs, NewToken, Origin, Statistics};
use offramp_pipeline::{Ended, Finish};
use pyo3::types::{PyDict, PyDictMethods};
use pyo3::{Bound, IntoPyObject, PyResult, Python, pyclass, pymethods};

/// A text under way. Dropping it stops it.
#[pyclass(frozen, module = "offramp.native")]
pub(crate) struct Stream(pub(crate) Listener);

/// What a step brought.
#[derive(IntoPyObject)]
struct Step<'py> {
    tokens: Vec<Token>,
    prompt_logprobs: Vec<TokenLogprobs>,
    end: Option<End<'py>>,
}

/// A new token, and the text that is certain after it.
#[derive(IntoPyObject)]
struct Token {
    text: String,
    token_id: u32,
    exit_layer: usize,
    origin: &'static str,
    logprobs: Option<TokenLogprobs>,
}

/// How likely a token is, and which were most likely in its place.
#[derive(IntoPyObject)]
struct TokenLogprobs {
    logprob: Option<f64>,
    top: Vec<(u32, f64)>,
}

/// How a text ended.
#[derive(IntoPyObject)]
struct End<'py> {
    text: String,
    finish_reason: &'static str,
    stop_string: Option<String>,
    statistics: Bound<'py, PyDict>,
}

#[pymethods]
impl Stream {
    /// Waits for the next step, as a dict; its `end` is not `None` in the last.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        fork::check()?;
        let step = match self.0.next(py)? {
            Event::Failed(error) => return Err(exception(&*error)),
            Event::More { tokens, prompt_logprobs } => Step {
                tokens: tokens.into_iter().map(Token::from).collect(),
                prompt_logprobs: prompt_logprobs.into_iter().map(TokenLogprobs::from).collect(),
                end: None,
            },
            Event::Ended(ended, text) => {
                let end = Some(End::new(py, *ended, text)?);
                Step { tokens: Vec::new(), prompt_logprobs: Vec::new(), end }
            }
        };
        step.into_pyobject(py)
    }
}

impl From<(NewToken, String)> for Token {
    fn from((token, text): (NewToken, String)) -> Self {
        let origin = match token.origin {
            Origin::Chosen => "chosen",
            Origin::Accepted => "accepted",
            Origin::Corrected => "corrected",
        };
        let logprobs = token.logprobs.map(TokenLogprobs::from);
        Self { text, token_id: token.id, exit_layer: token.depth, origin, logprobs }
    }
}

impl From<Logprobs> for TokenLogprobs {
    fn from(Logprobs { logprob, top }: Logprobs) -> Self {
        Self { logprob, top }
    }
}

impl<'py> End<'py> {
    fn new(py: Python<'py>, ended: Ended, text: String) -> PyResult<Self> {
        let (finish_reason, stop_string) = match ended.finish {
            Finish::StopToken => ("stop", None),
            Finish::StopString(stop) => ("stop", Some(stop)),
            Finish::Length => ("length", None),
            Finish::ContextFull => ("context_full", None),
            Finish::Reader => ("cancelled", None),
        };
        Ok(Self { text, finish_reason, stop_string, statistics: dict(py, &ended.statistics)? })
    }
}

/// Counts and times, in seconds.
fn dict<'py>(py: Python<'py>, statistics: &Statistics) -> PyResult<Bound<'py, PyDict>> {
    let Statistics { prompt_tokens, cached_tokens, new_tokens, rounds, drafted, accepted, .. } = *statistics;
    let dict = PyDict::new(py);
    dict.set_item("prompt_tokens", prompt_tokens + cached_tokens)?;
    dict.set_item("cached_tokens", cached_tokens)?;
    dict.set_item("new_tokens", new_tokens)?;
    dict.set_item("rounds", rounds)?;
    dict.set_item("drafted", drafted)?;
    dict.set_item("accepted", accepted)?;
    dict.set_item("mean_depth", statistics.mean_depth)?;
    dict.set_item("time_to_first_token", statistics.time_to_first_token.as_secs_f64())?;
    dict.set_item("decode_seconds", statistics.decode.as_secs_f64())?;
    dict.set_item("decode_tokens_per_second", statistics.decode_tokens_per_second())?;
    Ok(dict)
}
