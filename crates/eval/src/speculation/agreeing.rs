//! Models made up so that an exit agrees with the whole as often as one wishes: what speculation is worth in a shape
//! for which nobody has trained weights.

use super::verify::decode;
use crate::{Error, Result};
use offramp_engine::{Draft, GenerateOptions, SamplingOptions, Session, Speculation, Workspace, argmax};
use offramp_model::{Config, Damped, DraftHead, Formats, Llama};
use std::sync::Arc;

/// Tokens that the scale is first looked for on; they are as random as the weights.
const TOKENS: usize = 256;
/// Halvings of the logarithm of the scale.
const STEPS: usize = 7;
/// Between these it is looked for.
const SCALES: (f32, f32) = (1e-3, 4.0);
/// A text of its own is easier or harder than random tokens: so far around what these say it is looked for then, in so
/// many steps, until acceptance is so near.
const AROUND: f32 = 2.0;
const REFINED: usize = 8;
const NEAR: f64 = 0.01;
/// Tokens drafted in a round meanwhile.
const DRAFTED: usize = 4;

/// A model, and how often its exit agrees.
#[derive(Debug)]
pub struct Agreeing {
    /// It.
    pub model: Arc<Llama>,
    /// How much what the layers after the exit add was scaled.
    pub scale: f32,
    /// The chance that a token which the exit drafts is accepted if all before it in the draft were, over the texts.
    pub acceptance: f64,
}

/// The texts over which an exit is to agree.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    /// How they begin.
    pub prompts: &'a [Vec<u32>],
    /// How long they go on, greedily.
    pub new_tokens: usize,
}

/// Makes the head that drafts of a model.
pub type MakeHead<'a> = dyn Fn(&Llama) -> offramp_model::Result<Option<DraftHead>> + 'a;

/// Random weights, whose layers after `exit_layer` add so little to the residual stream that a token which the exit drafts
/// through the head of `make_head` is accepted, over `texts`, with the chance `acceptance`; `progress` hears steps done and to do.
///
/// # Errors
/// If there can be no such model, the texts do not fit its context, or `acceptance` is no share.
pub fn agreeing(
    (config, seed, formats): (&Config, u64, &Formats),
    (exit_layer, acceptance): (usize, f64),
    texts: Texts<'_>,
    make_head: &MakeHead<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Agreeing> {
    config.check_exit_layer(exit_layer)?;
    if !(acceptance > 0.0 && acceptance < 1.0) {
        return Err(Error::Options(format!("an acceptance of {acceptance}: it must lie between 0 and 1")));
    }
    let make = |scale| {
        Llama::random_agreeing(config.clone(), seed, formats, Damped { exit_layer, scale }).map(Arc::new)
    };
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done, STEPS + REFINED);
    };
    let mut bracket = (SCALES.0.ln(), SCALES.1.ln());
    for _ in 0..STEPS {
        let scale = middle(bracket);
        halve(&mut bracket, scale, measure(&make(scale)?, exit_layer)? > acceptance);
        step();
    }
    let around = middle(bracket).ln();
    bracket = (around - AROUND.ln(), around + AROUND.ln());
    let mut best: Option<Agreeing> = None;
    let off = |found: f64| (found - acceptance).abs();
    for _ in 0..REFINED {
        let scale = middle(bracket);
        let model = make(scale)?;
        let found = accepted(&model, exit_layer, texts, make_head)?;
        halve(&mut bracket, scale, found > acceptance);
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

/// The scale in the middle of a bracket of its logarithm.
fn middle((low, high): (f32, f32)) -> f32 {
    ((low + high) / 2.0).exp()
}

/// Keeps the half in which the scale is larger, or the other.
fn halve((low, high): &mut (f32, f32), scale: f32, larger: bool) {
    *(if larger { low } else { high }) = scale.ln();
}

/// How often a drafted token is accepted if all before it were.
fn accepted(
    model: &Arc<Llama>,
    exit_layer: usize,
    texts: Texts<'_>,
    make_head: &MakeHead<'_>,
) -> Result<f64> {
    let draft = Draft { exit_layer, num_speculations: DRAFTED };
    let mut speculation = Speculation::fixed(draft).with_head(make_head(model)?);
    let options = GenerateOptions {
        max_new_tokens: texts.new_tokens,
        stop_tokens: Vec::new(),
        token_limit: None,
        sampling: SamplingOptions::default(),
    };
    let (mut accepted, mut compared) = (0, 0);
    for prompt in texts.prompts {
        let statistics = decode(model, prompt, &options, &mut speculation)?.statistics;
        accepted += statistics.accepted;
        compared += statistics.accepted + statistics.rejected;
    }
    Ok(accepted as f64 / compared.max(1) as f64)
}

/// The share of positions of random tokens at which the exit's most likely token is the whole's.
fn measure(model: &Arc<Llama>, exit_layer: usize) -> Result<f64> {
    let config = model.config();
    let count = TOKENS.min(config.prompt_context());
    let mut state = 1u64;
    let mut token = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize % config.vocab_size) as u32
    };
    let tokens: Vec<u32> = (0..count).map(|_| token()).collect();
    let choices = |exit: usize| -> Result<Vec<u32>> {
        let (mut session, mut workspace) = (Session::new(model, count)?, Workspace::new());
        session.set_exit_layer(exit)?;
        Ok(session.feed_each(&tokens, &mut workspace)?.chunks_exact(config.vocab_size).map(argmax).collect())
    };
    let (exit, whole) = (choices(exit_layer)?, choices(config.num_hidden_layers)?);
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
        let find = |exit, wanted| {
            agreeing((&config, 1, &Formats::default()), (exit, wanted), texts, &|_| Ok(None), &mut |_, _| ())
        };
        for wanted in [0.5, 0.8, 0.95] {
            let found = find(2, wanted).unwrap();
            assert!((found.acceptance - wanted).abs() < 0.05, "{wanted}: {}", found.acceptance);
            assert_eq!(accepted(&found.model, 2, texts, &|_| Ok(None)).unwrap(), found.acceptance);
        }
        assert!(find(2, 1.0).is_err() && find(7, 0.5).is_err());
    }
}
