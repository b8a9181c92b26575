//! From logits to a token: greedy, or by chance that is tied to the position.
//!
//! Sampling is Gumbel-max: the token with the largest `logit / temperature + g` follows the softmax
//! distribution when each `g` is Gumbel noise (Gumbel 1954; Maddison et al. 2014). The noise comes
//! from a counter-based generator whose stream is the position, drawn per token id. The same seed so
//! gives the same token at a position whatever was computed before: reproducible, and the ground on
//! which speculative sampling can be an equality.

mod draw;
mod kept;

use crate::score::{argmax, lead};
use crate::{Error, Result};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// How a token is chosen.
#[derive(Clone, Copy, Debug)]
pub struct SamplingOptions {
    /// Flattens (above 1) or sharpens the distribution; 0 takes the most likely token.
    pub temperature: f32,
    /// Keep only so many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens until their probabilities sum to this; 1 keeps all.
    pub top_p: f32,
    /// Makes tokens that have occurred less likely (Keskar et al. 2019); 1 changes nothing.
    pub repetition_penalty: f32,
    /// Keep only tokens that are at least this share as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Taken from the logit of a token that is among the new ones.
    pub presence_penalty: f32,
    /// Taken from the logit of a token for each time that it is among the new ones.
    pub frequency_penalty: f32,
    /// What the noise is drawn from.
    pub seed: u64,
}

impl SamplingOptions {
    /// Takes the most likely token, and penalises none.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        repetition_penalty: 1.0,
        min_p: 0.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
    };
}

impl Default for SamplingOptions {
    /// Greedy.
    fn default() -> Self {
        Self::GREEDY
    }
}

/// Chooses tokens as its options say.
#[derive(Debug)]
pub struct Sampler {
    options: SamplingOptions,
    generator: ChaCha8Rng,
    logits: Vec<f32>,     // [vocab]
    chances: Vec<f32>,    // [vocab], their softmax
    candidates: Vec<u32>, // token ids that are kept
    prompt_tokens: usize, // tokens before the new ones
}

impl Sampler {
    /// # Errors
    /// If an option lies outside its range.
    pub fn new(options: SamplingOptions) -> Result<Self> {
        let SamplingOptions { temperature, top_p, repetition_penalty, min_p, seed, .. } = options;
        let check = |fine: bool, option, found, expected| match fine {
            true => Ok(()),
            false => Err(Error::Sampling { option, found, expected }),
        };
        let not_negative = temperature >= 0.0 && temperature.is_finite();
        check(not_negative, "temperature", temperature, "0 (greedy) or more")?;
        check(top_p > 0.0 && top_p <= 1.0, "top_p", top_p, "above 0 and at most 1")?;
        let positive = repetition_penalty > 0.0 && repetition_penalty.is_finite();
        check(positive, "repetition_penalty", repetition_penalty, "above 0")?;
        check((0.0..=1.0).contains(&min_p), "min_p", min_p, "between 0 and 1")?;
        let SamplingOptions { presence_penalty, frequency_penalty, .. } = options;
        check(presence_penalty.is_finite(), "presence_penalty", presence_penalty, "a finite number")?;
        check(frequency_penalty.is_finite(), "frequency_penalty", frequency_penalty, "a finite number")?;
        let generator = ChaCha8Rng::seed_from_u64(seed);
        let (logits, chances, candidates) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { options, generator, logits, chances, candidates, prompt_tokens: 0 })
    }

    /// Counts tokens as new only after the first `prompt_tokens`: for the presence and frequency penalties.
    #[must_use]
    pub fn after(self, prompt_tokens: usize) -> Self {
        Self { prompt_tokens, ..self }
    }

    /// The token that follows `tokens`, given the logits `[vocab]` after the last of them.
    ///
    /// # Errors
    /// If there are no logits, or they hold NaN or no finite value.
    pub fn next(&mut self, logits: &[f32], tokens: &[u32]) -> Result<u32> {
        Ok(self.next_with_margin(logits, tokens)?.0)
    }

    /// As [`Sampler::next`], and by how much the token came before the second: of logits when greedy, of what
    /// Gumbel-max compares otherwise; infinite if there was no second. How sure the choice is to stay the
    /// same if the logits change a little.
    ///
    /// # Errors
    /// As [`Sampler::next`].
    pub fn next_with_margin(&mut self, logits: &[f32], tokens: &[u32]) -> Result<(u32, f32)> {
        if logits.is_empty() {
            return Err(Error::NoChoice);
        }
        let nan = logits.iter().fold(0, |nan, logit| nan | u32::from(logit.is_nan()));
        let best = argmax(logits);
        if nan != 0 || !logits[best as usize].is_finite() {
            return Err(Error::NotFinite { position: tokens.len().saturating_sub(1) });
        }
        if self.options.temperature == 0.0 && !self.penalises() {
            return Ok((best, lead(logits, best)));
        }
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.penalise(tokens);
        if self.options.temperature == 0.0 {
            let best = argmax(&self.logits);
            return Ok((best, lead(&self.logits, best)));
        }
        self.sharpen();
        self.keep_most_likely();
        Ok(self.draw(tokens.len()))
    }

    fn penalises(&self) -> bool {
        let SamplingOptions { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.options;
        repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0
    }

    /// Divides a positive logit of a token that has occurred by the repetition penalty, multiplies a negative
    /// one; takes the other penalties from the logits of new tokens.
    fn penalise(&mut self, tokens: &[u32]) {
        self.penalise_repetition(tokens);
        let SamplingOptions { presence_penalty, frequency_penalty, .. } = self.options;
        if presence_penalty == 0.0 && frequency_penalty == 0.0 {
            return;
        }
        let mut new: Vec<u32> = tokens[self.prompt_tokens.min(tokens.len())..].to_vec();
        new.sort_unstable();
        for same in new.chunk_by(|a, b| a == b) {
            if let Some(logit) = self.logits.get_mut(same[0] as usize) {
                let penalised = *logit - presence_penalty - frequency_penalty * same.len() as f32;
                *logit = if logit.is_finite() { penalised.clamp(f32::MIN, f32::MAX) } else { *logit };
            }
        }
    }

    fn penalise_repetition(&mut self, tokens: &[u32]) {
        let penalty = self.options.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        let mut seen: Vec<u32> = tokens.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for token in seen {
            if let Some(logit) = self.logits.get_mut(token as usize) {
                let penalised = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
                // An extreme penalty must not make infinities; what is forbidden stays so.
                *logit = if logit.is_finite() { penalised.clamp(f32::MIN, f32::MAX) } else { *logit };
            }
        }
    }

    /// Divides by the temperature, the largest logit moved to 0 first: then a temperature however small
    /// sends the others to −∞ and not the largest to +∞.
    fn sharpen(&mut self) {
        let max = self.logits[argmax(&self.logits) as usize];
        let temperature = self.options.temperature;
        self.logits.iter_mut().for_each(|logit| *logit = (*logit - max) / temperature);
    }
}

#[cfg(test)]
mod tests;
