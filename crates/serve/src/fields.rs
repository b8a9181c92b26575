//! The fields that every endpoint shares: how tokens are chosen, where texts end, and how deep they go.

use crate::app::App;
use crate::error::{ApiError, Result};
use offramp_engine::{Draft, GenerateOptions, Request, Speculate, Speculation};
use offramp_pipeline::UserSampling;
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The most log-probabilities at one position, as elsewhere.
pub(crate) const MOST_LOGPROBS: usize = 20;

/// What completions, chats and responses have in common.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct SharedFields {
    /// The model's id; `id@12` leaves it after 12 layers.
    pub(crate) model: Option<String>,
    /// Below 1 sharpens the distribution; 0 is greedy.
    #[schema(minimum = 0)]
    temperature: Option<f32>,
    /// Keeps the most likely tokens until their probabilities sum to this.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    /// Keeps so many of the most likely tokens; 0 and -1 keep all.
    #[schema(minimum = -1)]
    top_k: Option<i64>,
    /// Keeps tokens that are at least this share as likely as the most likely one.
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f32>,
    /// Above 1 makes tokens that have occurred less likely.
    #[schema(exclusive_minimum = 0)]
    repetition_penalty: Option<f32>,
    /// Taken from the logit of a token that the new text has.
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f32>,
    /// Taken from it for each time that the new text has it.
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f32>,
    /// Added to the logits of token ids.
    logit_bias: Option<BTreeMap<String, f32>>,
    /// The same seed gives the same text. Without one, texts are drawn anew.
    seed: Option<i64>,
    /// Texts end before any of these.
    stop: Option<OneOrMany>,
    /// Goes on after tokens that end a text.
    ignore_eos: Option<bool>,
    /// Streams the text.
    pub(crate) stream: Option<bool>,
    /// What a stream says beside the text.
    pub(crate) stream_options: Option<StreamOptions>,
    /// Layers that run, from 1 on.
    #[schema(minimum = 1)]
    exit_layer: Option<usize>,
    /// `auto`, `off`, or an exit layer and a draft length, as `6:4`.
    speculate: Option<String>,
    /// Exits where an exit is sure: the share of tokens that must stay the full model's.
    #[schema(minimum = 0.5, maximum = 1)]
    agreement: Option<f64>,
    /// Says of each token how deep it went and how it came about.
    pub(crate) return_depths: Option<bool>,
    /// Has no effect.
    #[serde(rename = "user")]
    _user: Option<String>,
}

/// A text, or several.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// What a stream says beside the text.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct StreamOptions {
    /// A last chunk with the usage.
    pub(crate) include_usage: Option<bool>,
    /// The usage so far in every chunk.
    pub(crate) continuous_usage_stats: Option<bool>,
}

/// What is asked of each text of a request, but its prompt and its seed.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) exit_layer: usize,
    pub(crate) options: GenerateOptions,
    pub(crate) stop: Vec<String>,
    pub(crate) return_depths: bool,
    confidence: Option<offramp_engine::ConfidenceExit>,
    speculation: Speculation,
}

impl SharedFields {
    /// The fields as the engine takes them.
    pub(crate) async fn asked(&self, app: &App, stop_tokens: &[u32]) -> Result<Asked> {
        let layers = app.layers();
        let named = app.models.resolve(self.model.as_deref())?;
        let exit_layer = match (self.exit_layer, named) {
            (Some(given), Some(named)) if given != named => {
                let message =
                    format!("exit_layer is {given}, and the model's name says {named}: give one of the two");
                return Err(ApiError::invalid("exit_layer", message));
            }
            (given, named) => given.or(named),
        };
        let depth = exit_layer.unwrap_or(layers);
        if depth == 0 || depth > layers {
            let message =
                format!("exit_layer is {depth}, and the model has the exits 1 to {layers}: give one of them");
            return Err(ApiError::invalid("exit_layer", message));
        }
        let confidence = match self.agreement {
            None => None,
            Some(_) if exit_layer.is_some() => {
                let message = "an agreement chooses the depth of each token: give no exit_layer beside it";
                return Err(ApiError::invalid("agreement", message));
            }
            // All tokens are to be the full model's.
            Some(1.0) => None,
            Some(agreement) => Some(app.agreements.policy(agreement).await?),
        };
        Ok(Asked {
            exit_layer: depth,
            speculation: self.speculation(app, depth)?,
            confidence,
            options: self.options(app, stop_tokens)?,
            stop: self.stop_strings()?,
            return_depths: self.return_depths.unwrap_or(false),
        })
    }

    fn speculation(&self, app: &App, depth: usize) -> Result<Speculation> {
        let given = self.speculate.as_ref().map(|text| text.parse::<Speculate>()).transpose();
        let given = given.map_err(|error| ApiError::invalid("speculate", format!("speculate: {error}")))?;
        let how = match (given, self.agreement) {
            (None, Some(_)) => Speculate::Off,
            (Some(Speculate::Auto | Speculate::Fixed(_)), Some(_)) => {
                let message = "a text cannot be drafted and leave by agreement at once: give one of the two";
                return Err(ApiError::invalid("speculate", message));
            }
            (given, _) => given.unwrap_or(app.speculate),
        };
        if let Speculate::Fixed(Draft { exit_layer, num_speculations }) = how
            && (exit_layer == 0 || exit_layer > depth || num_speculations > 64)
        {
            let message = format!(
                "speculate is {how}: the draft's exit is between 1 and the text's own depth of {depth}, and its length \
                 at most 64"
            );
            return Err(ApiError::invalid("speculate", message));
        }
        // Copies are made when a text first asks for them.
        let speculation = tokio::task::block_in_place(|| app.drafts.speculation(how));
        speculation.map_err(|error| ApiError::invalid("speculate", error.to_string()))
    }

    fn options(&self, app: &App, stop_tokens: &[u32]) -> Result<GenerateOptions> {
        let top_k = match self.top_k {
            Some(-1) => Some(0),
            Some(top_k) => Some(usize::try_from(top_k).map_err(|_| {
                ApiError::invalid("top_k", format!("top_k is {top_k}: give 1 or more, or 0 to keep all"))
            })?),
            None => None,
        };
        for (name, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            if value.is_some_and(|value| !(-2.0..=2.0).contains(&value)) {
                let message = format!("{name} is {}: it must be between -2 and 2", value.unwrap_or_default());
                return Err(ApiError::invalid(name, message));
            }
        }
        let sampling = app.pipeline.sampling(&UserSampling {
            do_sample: None,
            temperature: self.temperature,
            top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            min_p: self.min_p.unwrap_or(0.0),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            seed: self.seed.map_or_else(rand::random, |seed| seed as u64),
        });
        offramp_engine::Sampler::new(sampling.options)?;
        let ends = if self.ignore_eos.unwrap_or(false) { Vec::new() } else { stop_tokens.to_vec() };
        Ok(GenerateOptions {
            stop_tokens: ends,
            logit_bias: self.logit_bias(app)?,
            ..app.pipeline.generate_options(0, sampling.options)
        })
    }

    fn logit_bias(&self, app: &App) -> Result<Vec<(u32, f32)>> {
        /// Each text has a copy of its own.
        const MOST: usize = 4096;
        if self.logit_bias.as_ref().is_some_and(|bias| bias.len() > MOST) {
            return Err(ApiError::invalid("logit_bias", format!("logit_bias names more than {MOST} tokens")));
        }
        let vocab = app.pipeline.tokenizer().vocab_size();
        let one = |(id, &bias): (&String, &f32)| {
            let known = id.parse::<u32>().ok().filter(|&id| (id as usize) < vocab);
            match known {
                Some(id) if (-100.0..=100.0).contains(&bias) => Ok((id, bias)),
                Some(_) => Err(ApiError::invalid(
                    "logit_bias",
                    format!("logit_bias of {id} is {bias}: it must be between -100 and 100"),
                )),
                None => Err(ApiError::invalid(
                    "logit_bias",
                    format!(
                        "logit_bias names {id:?}, which is no token id below {vocab}: name tokens by their ids"
                    ),
                )),
            }
        };
        self.logit_bias.iter().flatten().map(one).collect()
    }

    fn stop_strings(&self) -> Result<Vec<String>> {
        /// Enough for every client, and little to search for.
        const MOST: usize = 16;
        let stop = match &self.stop {
            None => Vec::new(),
            Some(OneOrMany::One(one)) => vec![one.clone()],
            Some(OneOrMany::Many(many)) => many.clone(),
        };
        if stop.len() > MOST || stop.iter().any(|stop| stop.is_empty() || stop.len() > 1024) {
            let message = format!("stop: give at most {MOST} strings of 1 to 1024 bytes");
            return Err(ApiError::invalid("stop", message));
        }
        Ok(stop)
    }
}

impl Asked {
    /// A text after `prompt` with up to `max_new_tokens` tokens, or as many as the context holds. The
    /// choices of one prompt have seeds that follow each other.
    pub(crate) fn request(
        &self,
        app: &App,
        prompt: &[u32],
        max_new_tokens: Option<usize>,
        choice: usize,
    ) -> Result<Request> {
        let space = app.context.saturating_sub(prompt.len());
        if space == 0 && max_new_tokens != Some(0) || prompt.len() > app.context {
            return Err(ApiError::context_length(prompt.len(), app.context));
        }
        let mut options = self.options.clone();
        options.max_new_tokens = max_new_tokens.map_or(space, |most| most.min(space));
        options.sampling.seed = options.sampling.seed.wrapping_add(choice as u64);
        let request = Request {
            prompt: prompt.to_vec(),
            exit_layer: self.exit_layer,
            confidence: self.confidence.clone(),
            speculation: self.speculation.clone(),
            options,
        };
        request.check(app.pipeline.model(), app.kv_positions)?;
        Ok(request)
    }
}
