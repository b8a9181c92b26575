//! Drafted and verified, a text is the plain one, token for token.

mod speculation {
    mod adaptive;
    mod apart;
    mod fixed;
    mod heads;
}

use offramp_engine::{
    Completion, Draft, GenerateOptions, NewToken, Origin, SamplingOptions, Session, Speculation, Workspace,
    generate,
};
use offramp_model::{Config, Llama};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const LAYERS: usize = 5;
const CONFIG: &str = r#"{
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 5,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 37,
    "max_position_embeddings": 96, "rms_norm_eps": 1e-5
}"#;

/// Random layers; the further `agreement` is from 1, the more the upper ones change what the lower ones said.
fn model(agreement: f32) -> Arc<Llama> {
    let config = Config::from_json(CONFIG, Path::new("config.json")).expect("a valid config");
    let mut state = 11u32;
    Arc::new(
        Llama::from_weights(config, |spec| {
            let upper = (2..LAYERS).any(|layer| spec.name.contains(&format!("layers.{layer}.")));
            let last = spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight");
            let scale = if upper && last { 1.0 - agreement } else { 1.0 };
            let mut number = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            Ok((0..spec.len()).map(|_| scale * number()).collect())
        })
        .expect("weights of the right sizes"),
    )
}

/// A text, the tokens that the session was left with, and the logits after one more.
#[derive(Debug, PartialEq)]
struct Told {
    tokens: Vec<u32>,
    held: Vec<u32>,
    logits: Vec<f32>,
}

fn told(
    model: &Arc<Llama>,
    options: &GenerateOptions,
    speculation: &mut Speculation,
    prompt: &[u32],
) -> (Told, Completion) {
    let mut session = Session::new(model, 90).expect("within the context");
    let (mut heard, mut origins) = (Vec::new(), Vec::new());
    let found = generate(
        &mut session,
        prompt,
        options,
        speculation,
        &mut Workspace::new(),
        &mut |NewToken { id: token, origin, .. }| {
            heard.push(token);
            origins.push(origin);
            ControlFlow::Continue(())
        },
    );
    let found = found.expect("a good prompt");
    assert_eq!(found.tokens, heard, "each token is handed out once, in order");
    let accepted = origins.iter().filter(|&&origin| origin == Origin::Accepted).count();
    assert!(accepted.abs_diff(found.statistics.accepted) <= 1, "all but a stop token");
    let held = session.tokens().to_vec();
    let logits = session.feed(&[1], &mut Workspace::new()).expect("room").to_vec();
    (Told { tokens: heard, held, logits }, found)
}

fn fixed(exit_layer: usize, num_speculations: usize) -> Speculation {
    Speculation::fixed(Draft { exit_layer, num_speculations })
}

fn options(sampling: SamplingOptions) -> GenerateOptions {
    GenerateOptions { max_new_tokens: 50, stop_tokens: vec![36], sampling, ..GenerateOptions::default() }
}

fn samplings() -> [SamplingOptions; 4] {
    let greedy = SamplingOptions::default();
    let hot = SamplingOptions { temperature: 1.5, seed: 7, ..greedy };
    let kept = SamplingOptions { temperature: 0.8, top_k: 9, top_p: 0.9, seed: 3, ..greedy };
    [
        greedy,
        SamplingOptions { repetition_penalty: 1.3, ..greedy },
        hot,
        SamplingOptions { repetition_penalty: 1.2, ..kept },
    ]
}
