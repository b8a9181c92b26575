//! Compares plain and speculative decoding over many prompts, and counts the equal texts.

use crate::Result;
use offramp_engine::{Completion, GenerateOptions, Session, Speculation, Statistics, Workspace, generate};
use offramp_model::Llama;
use serde::Serialize;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A kind of speculation, and its name for the reader.
#[derive(Clone, Debug)]
pub struct NamedSpeculation {
    /// "auto", "6:4".
    pub name: String,
    /// The speculation.
    pub speculation: Speculation,
}

/// The first difference of two texts.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The index of the prompt.
    pub prompt: usize,
    /// The name of the kind of speculation.
    pub way: String,
    /// The index of the new token.
    pub token: usize,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Texts that were decoded with speculation.
    pub texts: usize,
    /// Those that equal the plain ones, token for token.
    pub equal: usize,
    /// Tokens of all plain texts.
    pub plain_tokens: usize,
    /// Tokens compared.
    pub tokens: usize,
    /// Tokens drafted.
    pub drafted: usize,
    /// Tokens accepted.
    pub accepted: usize,
    /// The first difference of each text that differs.
    pub differences: Vec<Difference>,
}

/// Decodes every prompt plainly and with each kind of speculation. `progress` gets the texts done and the
/// total.
///
/// # Errors
/// If a prompt does not fit, or an exit does not exist.
pub fn verify(
    model: &Arc<Llama>,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    ways: &mut [NamedSpeculation],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<VerifyReport> {
    let (mut report, mut done) = (VerifyReport::default(), 0);
    let all = prompts.len() * (ways.len() + 1);
    let mut step = || {
        done += 1;
        progress(done, all);
    };
    for (prompt, opening) in prompts.iter().enumerate() {
        let plain = decode(model, opening, options, &mut Speculation::off())?.tokens;
        report.plain_tokens += plain.len();
        step();
        for way in ways.iter_mut() {
            let found = decode(model, opening, options, &mut way.speculation)?;
            let Statistics { drafted, accepted, .. } = found.statistics;
            report.texts += 1;
            report.tokens += plain.len();
            report.drafted += drafted;
            report.accepted += accepted;
            if found.tokens == plain {
                report.equal += 1;
            } else {
                let same = found.tokens.iter().zip(&plain).take_while(|(a, b)| a == b).count();
                report.differences.push(Difference { prompt, way: way.name.clone(), token: same });
            }
            step();
        }
    }
    Ok(report)
}

/// Generates a text in its own session.
pub(super) fn decode(
    model: &Arc<Llama>,
    prompt: &[u32],
    options: &GenerateOptions,
    speculation: &mut Speculation,
) -> Result<Completion> {
    let context = model.config().context();
    let mut session = Session::new(model, prompt.len().saturating_add(options.max_new_tokens).min(context))?;
    Ok(generate(&mut session, prompt, options, speculation, &mut Workspace::new(), &mut |_| {
        ControlFlow::Continue(())
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use offramp_engine::{Adaptive, Draft, SamplingOptions};
    use offramp_model::{Config, Damped, Formats};
    use std::path::Path;

    #[test]
    fn every_text_is_counted() {
        let config = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "vocab_size": 30,
            "num_hidden_layers": 4, "num_attention_heads": 2, "max_position_embeddings": 32}"#;
        let config = Config::from_json(config, Path::new("config.json")).unwrap();
        let model = Arc::new(
            Llama::random_agreeing(config, 1, &Formats::default(), Damped { exit_layer: 2, scale: 0.1 })
                .unwrap(),
        );
        let options = GenerateOptions {
            max_new_tokens: 12,
            sampling: SamplingOptions::default(),
            ..GenerateOptions::default()
        };
        let fixed = Speculation::fixed(Draft { exit_layer: 2, num_speculations: 3 });
        let mut ways = [
            NamedSpeculation { name: "2:3".into(), speculation: fixed },
            NamedSpeculation { name: "auto".into(), speculation: Speculation::auto(Adaptive::by_bytes()) },
        ];
        let mut heard = Vec::new();
        let prompts = [vec![1, 2], vec![3], vec![4, 5, 6]];
        let report = verify(&model, &prompts, &options, &mut ways, &mut |done, all| heard.push((done, all)));
        let report = report.unwrap();
        assert_eq!((report.texts, report.equal, report.plain_tokens, report.tokens), (6, 6, 36, 72));
        assert!(report.accepted > 0 && report.accepted <= report.drafted && report.differences.is_empty());
        assert_eq!(heard, (1..=9).map(|done| (done, 9)).collect::<Vec<_>>());
    }
}
