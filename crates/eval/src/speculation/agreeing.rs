//! Made-up models of which an exit, or a copy of the first layers, agrees with the full model as often as
//! requested. They measure speculation in a shape for which nobody has trained weights.

use super::verify::decode;
use crate::{Error, Result};
use offramp_engine::{Draft, GenerateOptions, SamplingOptions, Session, Speculation, Workspace, argmax};
use offramp_model::{Config, Damped, DraftHead, DraftLayers, Format, Formats, Llama};
use std::sync::Arc;

/// The random tokens of the first search for the scale.
const TOKENS: usize = 256;
/// Steps of the bisection, over the logarithm of the scale.
const STEPS: usize = 7;
/// The range of scales that is searched.
const SCALES: (f32, f32) = (1e-3, 4.0);
/// Real texts are easier or harder than random tokens. So a second search looks at scales up to this factor
/// around the first result, until the acceptance over the texts is close enough.
const AROUND: f32 = 2.0;
const REFINED: usize = 8;
const NEAR: f64 = 0.01;
/// Tokens drafted in a round during the search.
const DRAFTED: usize = 4;

/// A made-up model, and how often its exit agrees.
#[derive(Debug)]
pub struct Agreeing {
    /// The model.
    pub model: Arc<Llama>,
    /// The factor on the output of the layers after the exit.
    pub scale: f32,
    /// The chance that a token drafted at the exit is accepted if all before it in the draft were, over the
    /// texts.
    pub acceptance: f64,
}

/// The texts over which the exit should agree.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    /// Their prompts.
    pub prompts: &'a [Vec<u32>],
    /// The number of new tokens, greedy.
    pub new_tokens: usize,
}

/// Makes the draft head of a model.
pub type MakeHead<'a> = dyn Fn(&Llama) -> offramp_model::Result<Option<DraftHead>> + 'a;

/// The model to make up, and how often its exit should agree.
#[derive(Clone, Copy, Debug)]
pub struct AgreeingOptions<'a> {
    /// The model's config.
    pub config: &'a Config,
    /// The seed of its random weights.
    pub seed: u64,
    /// Its number formats.
    pub formats: &'a Formats,
    /// The exit that should agree. All layers may, where copies draft.
    pub exit_layer: usize,
    /// The format of the copies that draft; `None` for the model's own layers.
    pub draft_format: Option<Format>,
    /// The chance that a token drafted at the exit should be accepted.
    pub acceptance: f64,
}

/// Makes random weights, which are those that copies can hold where copies draft, and scales the layers after
/// the exit down (all but the first, where the exit is the full depth) until a token that the exit drafts,
/// through the head of `make_head`, is accepted with the requested chance over `texts`. `progress` gets the
/// steps done and the total.
///
/// # Errors
/// If there can be no such model, the texts do not fit its context, or the acceptance is not between 0 and 1.
pub fn agreeing(
    options: &AgreeingOptions<'_>,
    texts: Texts<'_>,
    make_head: &MakeHead<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Agreeing> {
    let AgreeingOptions { config, seed, formats, exit_layer, acceptance, .. } = *options;
    config.check_exit_layer(exit_layer)?;
    let damped_from = if exit_layer == config.num_hidden_layers { 1 } else { exit_layer };
    if !(acceptance > 0.0 && acceptance < 1.0) {
        return Err(Error::Options(format!("an acceptance of {acceptance}: it must lie between 0 and 1")));
    }
    let make = |scale| {
        let damped = Damped { exit_layer: damped_from, scale };
        let Some(narrow) = options.draft_format else {
            return Llama::random_agreeing(config.clone(), seed, formats, damped).map(Arc::new);
        };
        // Random numbers lose more in a few bits than trained ones. So these are what the bits can say.
        let head = formats.head.or(formats.layers);
        let coded = Formats { layers: Some(narrow), head, ..*formats };
        let model = Llama::random_agreeing(config.clone(), seed, &coded, damped)?;
        model.with_layers_in(formats.layers.unwrap_or(Format::F32)).map(Arc::new)
    };
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done, STEPS + REFINED);
    };
    let mut bracket = Bracket { low: SCALES.0.ln(), high: SCALES.1.ln() };
    for _ in 0..STEPS {
        let scale = bracket.middle();
        bracket.halve(scale, measure(&make(scale)?, options)? > acceptance);
        step();
    }
    let around = bracket.middle().ln();
    bracket = Bracket { low: around - AROUND.ln(), high: around + AROUND.ln() };
    let mut best: Option<Agreeing> = None;
    let off = |found: f64| (found - acceptance).abs();
    for _ in 0..REFINED {
        let scale = bracket.middle();
        let model = make(scale)?;
        let found = accepted(&model, options, texts, make_head)?;
        bracket.halve(scale, found > acceptance);
        if best.as_ref().is_none_or(|best| off(found) < off(best.acceptance)) {
            best = Some(Agreeing { model, scale, acceptance: found });
        }
        step();
        if off(found) <= NEAR {
            break;
        }
    }
    Ok(best.expect("there was a step"))
}

/// A range of scales, by their logarithms.
struct Bracket {
    low: f32,
    high: f32,
}

impl Bracket {
    /// The scale in the middle.
    fn middle(&self) -> f32 {
        ((self.low + self.high) / 2.0).exp()
    }

    /// Keeps the part above `scale`, or the part below.
    fn halve(&mut self, scale: f32, above: bool) {
        *(if above { &mut self.low } else { &mut self.high }) = scale.ln();
    }
}

impl AgreeingOptions<'_> {
    /// The copies that draft.
    fn copies(&self, model: &Llama) -> Result<Option<DraftLayers>> {
        Ok(self.draft_format.map(|format| model.draft_layers(self.exit_layer, format)).transpose()?)
    }
}

/// The chance that a drafted token is accepted if all before it were.
fn accepted(
    model: &Arc<Llama>,
    options: &AgreeingOptions<'_>,
    texts: Texts<'_>,
    make_head: &MakeHead<'_>,
) -> Result<f64> {
    let draft = Draft { exit_layer: options.exit_layer, num_speculations: DRAFTED };
    let speculation = Speculation::fixed(draft).with_head(make_head(model)?);
    let mut speculation = speculation.with_layers(options.copies(model)?);
    let options = GenerateOptions {
        max_new_tokens: texts.new_tokens,
        sampling: SamplingOptions::default(),
        ..GenerateOptions::default()
    };
    let (mut accepted, mut compared) = (0, 0);
    for prompt in texts.prompts {
        let statistics = decode(model, prompt, &options, &mut speculation)?.statistics;
        accepted += statistics.accepted;
        compared += statistics.accepted + statistics.rejected;
    }
    Ok(accepted as f64 / compared.max(1) as f64)
}

/// The share of random tokens at which the most likely token of what drafts is the full model's.
fn measure(model: &Arc<Llama>, options: &AgreeingOptions<'_>) -> Result<f64> {
    let config = model.config();
    let count = TOKENS.min(config.prompt_context());
    let mut state = 1u64;
    let mut token = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize % config.vocab_size) as u32
    };
    let tokens: Vec<u32> = (0..count).map(|_| token()).collect();
    let choices = |model: &Arc<Llama>, exit: usize| -> Result<Vec<u32>> {
        let (mut session, mut workspace) = (Session::new(model, count)?, Workspace::new());
        session.set_exit_layer(exit)?;
        Ok(session.feed_each(&tokens, &mut workspace)?.chunks_exact(config.vocab_size).map(argmax).collect())
    };
    let copies = options.copies(model)?;
    let drafting = copies.as_ref().map_or(model, DraftLayers::model);
    let (exit, whole) = (choices(drafting, options.exit_layer)?, choices(model, config.num_hidden_layers)?);
    let equal = exit.iter().zip(&whole).filter(|(a, b)| a == b).count();
    Ok(equal as f64 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn it_agrees_about_as_often_as_was_asked() {
        let config = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "vocab_size": 100,
            "num_hidden_layers": 6, "num_attention_heads": 2, "max_position_embeddings": 256}"#;
        let config = Config::from_json(config, Path::new("config.json")).unwrap();
        let prompts = [vec![1, 2, 3], vec![50], vec![99, 7], vec![20, 60]];
        let texts = Texts { prompts: &prompts, new_tokens: 200 };
        let formats = &Formats::default();
        let options = |exit_layer, acceptance, draft_format| AgreeingOptions {
            config: &config,
            seed: 1,
            formats,
            exit_layer,
            draft_format,
            acceptance,
        };
        let find = |options: &AgreeingOptions<'_>| agreeing(options, texts, &|_| Ok(None), &mut |_, _| ());
        let int4 = Some(Format::Int4);
        for (exit, wanted, format) in
            [(2, 0.5, None), (2, 0.8, None), (2, 0.95, None), (2, 0.8, int4), (6, 0.9, int4)]
        {
            let options = options(exit, wanted, format);
            let found = find(&options).unwrap();
            assert!((found.acceptance - wanted).abs() < 0.05, "{exit}, {wanted}: {}", found.acceptance);
            assert_eq!(accepted(&found.model, &options, texts, &|_| Ok(None)).unwrap(), found.acceptance);
        }
        assert!(find(&options(2, 1.0, None)).is_err() && find(&options(7, 0.5, None)).is_err());
    }
}
