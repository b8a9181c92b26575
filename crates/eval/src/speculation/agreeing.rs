//! Models made up so that an exit agrees with the whole as often as one wishes: what speculation is worth in a shape
//! for which nobody has trained weights.

use crate::{Error, Result};
use offramp_engine::{Session, argmax};
use offramp_model::{Config, Formats, Llama};

/// Tokens that the agreement is found on; they are as random as the weights.
const TOKENS: usize = 256;
/// Halvings of the logarithm of the scale.
const STEPS: usize = 9;
/// Between these it is looked for.
const SCALES: (f32, f32) = (1e-3, 4.0);

/// A model, and how often its exit agrees.
#[derive(Debug)]
pub struct Agreeing {
    /// It.
    pub model: Llama,
    /// How much what the layers after the exit add was scaled.
    pub scale: f32,
    /// The share of random tokens after which exit and full model say the same.
    pub agreement: f64,
}

/// Random weights, whose layers after `exit_layer` add so little to the residual stream that the exit says what the
/// whole says in the share `agreement` of cases; `progress` hears steps done and to do.
///
/// # Errors
/// If there can be no such model, or `agreement` is no share.
pub fn agreeing(
    config: &Config,
    seed: u64,
    formats: &Formats,
    (exit_layer, agreement): (usize, f64),
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Agreeing> {
    config.check_exit_layer(exit_layer)?;
    if !(agreement > 0.0 && agreement < 1.0) {
        return Err(Error::Options(format!("an acceptance of {agreement}: it must lie between 0 and 1")));
    }
    let (mut low, mut high) = (SCALES.0.ln(), SCALES.1.ln());
    let mut best: Option<Agreeing> = None;
    for step in 0..STEPS {
        let scale = ((low + high) / 2.0).exp();
        let model = Llama::random_agreeing(config.clone(), seed, formats, (exit_layer, scale))?;
        let found = measure(&model, exit_layer)?;
        if found > agreement {
            low = scale.ln()
        } else {
            high = scale.ln()
        }
        let off = |found: f64| (found - agreement).abs();
        if best.as_ref().is_none_or(|best| off(found) < off(best.agreement)) {
            best = Some(Agreeing { model, scale, agreement: found });
        }
        progress(step + 1, STEPS);
    }
    Ok(best.expect("there was a step"))
}

/// The share of positions of random tokens at which the exit's most likely token is the whole's.
fn measure(model: &Llama, exit_layer: usize) -> Result<f64> {
    let config = model.config();
    let count = TOKENS.min(config.max_position_embeddings);
    let mut state = 1u64;
    let mut token = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize % config.vocab_size) as u32
    };
    let tokens: Vec<u32> = (0..count).map(|_| token()).collect();
    let choices = |exit: usize| -> Result<Vec<u32>> {
        let mut session = Session::new(model, count)?;
        session.set_exit_layer(exit)?;
        Ok(session.feed_each(&tokens)?.chunks_exact(config.vocab_size).map(argmax).collect())
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
        for wanted in [0.5, 0.8, 0.95] {
            let found = agreeing(&config, 1, &Formats::default(), (2, wanted), &mut |_, _| ()).unwrap();
            assert!((found.agreement - wanted).abs() < 0.05, "{wanted}: {}", found.agreement);
            assert_eq!(measure(&found.model, 2).unwrap(), found.agreement);
        }
        assert!(agreeing(&config, 1, &Formats::default(), (2, 1.0), &mut |_, _| ()).is_err());
        assert!(agreeing(&config, 1, &Formats::default(), (7, 0.5), &mut |_, _| ()).is_err());
    }
}
