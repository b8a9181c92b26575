//! Perplexity at every exit, in one pass over the data.
//!
//! The stream of tokens is cut into windows of C + 1 that overlap by one, so that every token but the first
//! is scored exactly once. A window goes through the layers once; the one head scores it at each exit.

use crate::{Error, Result};
use offramp_engine::{TokenScore, score};
use offramp_model::{Batch, Hidden, KvCache, Llama, Scratch};
use offramp_pipeline::Pipeline;
use offramp_text::{TokenStream, Windows};
use serde::{Deserialize, Serialize};

/// The longest context by default: the card's.
const CONTEXT: usize = 512;
/// Logits held at once, in floats.
const LOGITS: usize = 1 << 22;

/// The options of an evaluation.
#[derive(Clone, Debug, Default)]
pub struct PerplexityOptions {
    /// Exits to score, each `1..=num_hidden_layers`; empty for all.
    pub exits: Vec<usize>,
    /// Tokens of context C; by default 512, or the model's context if that is less.
    pub context: Option<usize>,
    /// Stop after about this many scored tokens, in whole windows.
    pub max_tokens: Option<u64>,
}

/// The score of one exit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ExitScore {
    /// The exit layer.
    pub exit_layer: usize,
    /// Tokens scored.
    pub tokens: u64,
    /// UTF-8 bytes of the scored tokens' text; `<|endoftext|>` counts none.
    pub bytes: u64,
    /// Mean negative log-likelihood of a token, in nats.
    pub nats_per_token: f64,
    /// `e^nats_per_token`.
    pub perplexity: f64,
    /// `Σ nats / ln 2 / bytes`.
    pub bits_per_byte: f64,
    /// The share of tokens whose most likely next token is the full model's too.
    pub agreement: f64,
}

/// Scores `stream` at every exit of a model with its tokenizer; as [`perplexity`].
///
/// # Errors
/// As [`perplexity`].
pub fn evaluate(
    pipeline: &Pipeline,
    stream: &TokenStream,
    options: &PerplexityOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<ExitScore>> {
    let byte_length =
        |previous: u32, token: u32| pipeline.tokenizer().token_bytes_after(previous, token).unwrap_or(0);
    perplexity(pipeline.model(), stream, &byte_length, options, progress)
}

/// Scores `stream` at every exit of `options`.
///
/// `byte_length` gives the UTF-8 bytes of a token's text after the token before it. `progress` gets the
/// tokens scored and the total.
///
/// # Errors
/// If the stream has another vocabulary, is too short or cannot be read, if an exit does not exist or the
/// context does not fit the model.
pub fn perplexity(
    model: &Llama,
    stream: &TokenStream,
    byte_length: &dyn Fn(u32, u32) -> usize,
    options: &PerplexityOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<ExitScore>> {
    let mut pass = WindowPass::new(model, stream, options)?;
    let windows = Windows::new(stream, pass.context)?;
    let total = (stream.len() - 1).min(options.max_tokens.unwrap_or(u64::MAX));
    for window in windows.iter() {
        let window = window?;
        pass.window(window.inputs(), window.labels())?;
        let pairs = window.inputs().iter().zip(window.labels());
        pass.bytes += pairs.map(|(&before, &label)| byte_length(before, label) as u64).sum::<u64>();
        progress(pass.tokens.min(total), total);
        if pass.tokens >= total {
            break;
        }
    }
    Ok(pass.scores())
}

/// The context in which `model` is measured on `stream`, for the context `asked`.
pub(crate) fn context_of(model: &Llama, stream: &TokenStream, asked: Option<usize>) -> Result<usize> {
    let (vocab, limit) = (model.config().vocab_size, model.config().prompt_context());
    if stream.vocab_size() > vocab {
        return Err(Error::Vocabulary { data: stream.vocab_size(), model: vocab });
    }
    let context = asked.unwrap_or(CONTEXT.min(limit));
    if context == 0 || context > limit {
        return Err(Error::Options(format!("a context of {context} tokens: the model has 1 to {limit}")));
    }
    Ok(context)
}

/// Tokens whose logits are held at once.
pub(crate) fn rows_at_once(model: &Llama) -> usize {
    (LOGITS / model.config().vocab_size).max(1)
}

/// The sums so far, and the buffers of one window.
struct WindowPass<'m> {
    model: &'m Llama,
    context: usize,
    exits: Vec<usize>, // ascending, the full depth always last
    wanted: Vec<usize>,
    nats: Vec<f64>,  // [exits]
    agree: Vec<u64>, // [exits]
    tokens: u64,
    bytes: u64,
    hidden: Hidden,
    cache: KvCache,
    scratch: Scratch,
    logits: Vec<f32>, // [rows, vocab]
}

impl<'m> WindowPass<'m> {
    fn new(model: &'m Llama, stream: &TokenStream, options: &PerplexityOptions) -> Result<Self> {
        let (config, context) = (model.config(), context_of(model, stream, options.context)?);
        let full = config.num_hidden_layers;
        options.exits.iter().try_for_each(|&exit| config.check_exit_layer(exit))?;
        let all: Vec<usize> = (1..=full).collect();
        let wanted = if options.exits.is_empty() { all } else { options.exits.clone() };
        // Agreement needs the full model's choice even if its score was not asked for.
        let mut exits = wanted.clone();
        exits.push(full);
        exits.sort_unstable();
        exits.dedup();
        Ok(Self {
            model,
            context,
            wanted,
            nats: vec![0.0; exits.len()],
            agree: vec![0; exits.len()],
            exits,
            tokens: 0,
            bytes: 0,
            hidden: model.new_hidden(),
            cache: model.new_cache(context),
            scratch: Scratch::new(),
            logits: Vec::new(),
        })
    }

    /// Runs one window through the layers and scores it at each exit.
    fn window(&mut self, inputs: &[u32], labels: &[u32]) -> Result<()> {
        self.cache.clear();
        self.model.embed(inputs, &mut self.hidden)?;
        let mut depth = 0;
        let mut scores: Vec<Vec<TokenScore>> = Vec::with_capacity(self.exits.len()); // [exits][tokens]
        for e in 0..self.exits.len() {
            let exit = self.exits[e];
            let mut batch = Batch::one(&mut self.cache);
            self.model.forward(depth..exit, &mut self.hidden, &mut batch, &mut self.scratch)?;
            depth = exit;
            scores.push(self.exit_scores(labels));
        }
        let full = scores.last().expect("the full depth is always scored");
        for (i, exit) in scores.iter().enumerate() {
            self.nats[i] += exit.iter().map(|token| token.nats).sum::<f64>();
            self.agree[i] += exit.iter().zip(full).filter(|(a, b)| a.argmax == b.argmax).count() as u64;
        }
        self.tokens += labels.len() as u64;
        Ok(())
    }

    /// The scores of every token at the current depth, a few rows of logits at a time.
    fn exit_scores(&mut self, labels: &[u32]) -> Vec<TokenScore> {
        let rows = rows_at_once(self.model);
        let mut scores = Vec::with_capacity(labels.len());
        for first in (0..labels.len()).step_by(rows) {
            let range = first..(first + rows).min(labels.len());
            self.model.head(&self.hidden, range.clone(), &mut self.logits, &mut self.scratch);
            scores.extend(score(&mut self.logits, &labels[range]));
        }
        scores
    }

    fn scores(self) -> Vec<ExitScore> {
        let one = |&exit_layer: &usize| {
            let i = self.exits.binary_search(&exit_layer).expect("every wanted exit was scored");
            let nats_per_token = self.nats[i] / self.tokens as f64;
            ExitScore {
                exit_layer,
                tokens: self.tokens,
                bytes: self.bytes,
                nats_per_token,
                perplexity: nats_per_token.exp(),
                bits_per_byte: self.nats[i] / std::f64::consts::LN_2 / self.bytes as f64,
                agreement: self.agree[i] as f64 / self.tokens as f64,
            }
        };
        self.wanted.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests;
