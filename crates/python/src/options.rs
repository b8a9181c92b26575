//! What Python asks of a text, as the engine takes it. The Python layer fills in every key.

use crate::errors::OrRaise;
use crate::loaded::Loaded;
use offramp_engine::{
    ConfidenceExit, Constraint, Draft, GenerateOptions, Request, Sampler, Speculate, Speculation,
};
use offramp_pipeline::UserSampling;
use pyo3::exceptions::PyValueError;
use pyo3::{FromPyObject, PyResult, Python};

/// The options of one text, as a dict.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct TextOptions {
    max_new_tokens: usize,
    exit_layer: usize,
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: f32,
    repetition_penalty: Option<f32>,
    presence_penalty: f32,
    frequency_penalty: f32,
    seed: u64,
    pub(crate) stop: Vec<String>,
    /// `auto`, `off`, or an exit layer and a draft length, as `6:4`.
    speculate: String,
    agreement: Option<f64>,
    logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    ignore_eos: bool,
    /// The only token that may be chosen, of a text that is scored.
    only: Option<u32>,
    /// Whether the template's end of a turn ends the text, too.
    chat: bool,
}

impl TextOptions {
    /// The text that goes on from `prompt`. An agreement that is new is calibrated first, which may take
    /// seconds.
    pub(crate) fn request(&self, py: Python<'_>, loaded: &Loaded, prompt: Vec<u32>) -> PyResult<Request> {
        let pipeline = &loaded.pipeline;
        pipeline.model().config().check_exit_layer(self.exit_layer).or_raise()?;
        Ok(Request {
            prompt,
            exit_layer: self.exit_layer,
            confidence: self.confidence(py, loaded)?,
            speculation: self.speculation(py, loaded)?,
            options: self.options(loaded)?,
        })
    }

    fn options(&self, loaded: &Loaded) -> PyResult<GenerateOptions> {
        let sampling = loaded.pipeline.sampling(&UserSampling {
            do_sample: self.do_sample,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            min_p: self.min_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
        });
        Sampler::new(sampling.options).or_raise()?;
        let stop_tokens = match (self.ignore_eos, self.chat) {
            (true, _) => Vec::new(),
            (false, true) => loaded.chat_stop_tokens(),
            (false, false) => loaded.pipeline.stop_tokens().to_vec(),
        };
        Ok(GenerateOptions {
            stop_tokens,
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs,
            constraint: self.only.map(|token| Box::new(Only(token)) as Box<dyn Constraint>),
            ..loaded.pipeline.generate_options(self.max_new_tokens, sampling.options)
        })
    }

    fn speculation(&self, py: Python<'_>, loaded: &Loaded) -> PyResult<Speculation> {
        let how = self.speculate.parse::<Speculate>();
        let how = how.map_err(|error| PyValueError::new_err(format!("speculate: {error}")))?;
        if let Speculate::Fixed(Draft { exit_layer, num_speculations }) = how
            && (exit_layer == 0 || exit_layer > self.exit_layer || num_speculations > 64)
        {
            return Err(PyValueError::new_err(format!(
                "the draft is {how}: its exit is between 1 and the text's own depth of {}, and its length at most 64",
                self.exit_layer
            )));
        }
        match how {
            Speculate::Off => Ok(Speculation::off()),
            // Copies are made when a text first asks for them.
            how => py.detach(|| loaded.drafts()?.speculation(how).or_raise()),
        }
    }

    fn confidence(&self, py: Python<'_>, loaded: &Loaded) -> PyResult<Option<ConfidenceExit>> {
        match self.agreement {
            // All tokens are to be the full model's.
            None | Some(1.0) => Ok(None),
            Some(agreement) => loaded.policy(py, agreement).map(Some),
        }
    }
}

/// Allows one token. So the last token of a text is scored without being run, and a text of one token more
/// than the context can be scored.
#[derive(Debug)]
struct Only(u32);

impl Constraint for Only {
    fn allow(&mut self, _: &[u32], allowed: &mut [u32]) {
        if let Some(word) = allowed.get_mut(self.0 as usize / 32) {
            *word |= 1 << (self.0 % 32);
        }
    }

    fn duplicate(&self) -> Box<dyn Constraint> {
        Box::new(Self(self.0))
    }
}
