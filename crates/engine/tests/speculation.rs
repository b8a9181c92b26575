//! Drafted and verified, a text is the plain one, token for token.

use offramp_engine::{Draft, GenerateOptions, Generation, SamplingOptions, Session, StopReason, generate};
use offramp_model::{CacheFormat, Config, Format, Formats, Llama};
use std::ops::ControlFlow;
use std::path::Path;

const LAYERS: usize = 5;
const CONFIG: &str = r#"{
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 5,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 37,
    "max_position_embeddings": 96, "rms_norm_eps": 1e-5
}"#;

/// Random layers; the further `agreement` is from 1, the more the upper ones change what the lower ones said.
fn model(agreement: f32) -> Llama {
    let config = Config::from_json(CONFIG, Path::new("config.json")).expect("a valid config");
    let mut state = 11u32;
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
    .expect("weights of the right sizes")
}

/// The text, and the tokens that the session was left with.
fn told(model: &Llama, options: &GenerateOptions, prompt: &[u32]) -> (Generation, Vec<u32>, Vec<f32>) {
    let mut session = Session::new(model, 90).expect("within the context");
    let mut heard = Vec::new();
    let found = generate(&mut session, prompt, options, &mut |token| {
        heard.push(token);
        ControlFlow::Continue(())
    });
    let found = found.expect("a good prompt");
    assert_eq!(found.tokens, heard, "each token is handed out once, in order");
    let held = session.tokens().to_vec();
    let logits = session.feed(&[1]).expect("room").to_vec();
    (found, held, logits)
}

fn options(sampling: SamplingOptions, draft: Option<Draft>) -> GenerateOptions {
    GenerateOptions { max_new_tokens: 50, stop_tokens: vec![36], token_limit: None, sampling, draft }
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

#[test]
fn it_is_the_plain_text_at_every_exit_and_length() {
    let mut accepted = [0, 0];
    for (index, agreement) in [0.0, 0.97].into_iter().enumerate() {
        let model = model(agreement);
        for sampling in samplings() {
            let plain = told(&model, &options(sampling, None), &[5, 9, 2]);
            assert_eq!(plain.0.statistics.drafted, 0);
            for exit_layer in 1..=LAYERS {
                for num_speculations in [0, 1, 2, 3, 7, 60] {
                    let draft = Draft { exit_layer, num_speculations };
                    let found = told(&model, &options(sampling, Some(draft)), &[5, 9, 2]);
                    assert_eq!(found.0.tokens, plain.0.tokens, "{draft:?}, {sampling:?}");
                    assert_eq!(found.0.reason, plain.0.reason);
                    assert_eq!((&found.1, &found.2), (&plain.1, &plain.2), "the session is left the same");
                    if exit_layer == 2 && num_speculations == 3 {
                        accepted[index] += found.0.statistics.accepted;
                    }
                }
            }
        }
    }
    assert!(accepted[1] > 2 * accepted[0], "two models that agree differently: {accepted:?}");
}

#[test]
fn it_is_the_plain_text_in_every_format() {
    let config = Config::from_json(CONFIG, Path::new("config.json")).expect("a valid config");
    for layers in Format::ALL {
        for kv_cache in [CacheFormat::F32, CacheFormat::F16] {
            let formats = Formats { layers: Some(layers), head: Some(Format::Int8), kv_cache };
            let model = Llama::random(config.clone(), 5, &formats).expect("a small model");
            let plain = told(&model, &options(samplings()[2], None), &[1, 2, 3, 4]);
            for exit_layer in [1, 3] {
                let draft = Draft { exit_layer, num_speculations: 4 };
                let found = told(&model, &options(samplings()[2], Some(draft)), &[1, 2, 3, 4]);
                assert_eq!(found.0.tokens, plain.0.tokens, "{layers}");
            }
        }
    }
}

#[test]
fn a_full_context_and_an_early_end_are_the_plain_ones() {
    let model = model(0.97);
    let greedy = SamplingOptions::default();
    let draft = Some(Draft { exit_layer: 2, num_speculations: 5 });
    for max_new_tokens in [0, 1, 2, 3, 4, 5, 200] {
        let with =
            |draft| GenerateOptions { max_new_tokens, stop_tokens: Vec::new(), ..options(greedy, draft) };
        let text = |draft| {
            let mut session = Session::new(&model, 40).expect("within the context");
            let found = generate(&mut session, &[3, 1], &with(draft), &mut |_| ControlFlow::Continue(()));
            let found = found.expect("a good prompt");
            (found.tokens, found.reason, session.tokens().to_vec())
        };
        assert_eq!(text(draft), text(None), "{max_new_tokens}");
        if max_new_tokens == 200 {
            assert_eq!(text(draft).1, StopReason::ContextFull);
        }
    }
    // A reader who leaves after three tokens.
    let endless = |draft| GenerateOptions { stop_tokens: Vec::new(), ..options(greedy, draft) };
    for draft in [None, draft] {
        let mut session = Session::new(&model, 40).expect("within the context");
        let mut heard = 0;
        let mut leave = |_| {
            heard += 1;
            if heard == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let found = generate(&mut session, &[3, 1], &endless(draft), &mut leave).expect("a good prompt");
        assert_eq!((found.tokens.len(), found.reason), (3, StopReason::Callback));
        assert_eq!(session.tokens(), [&[3, 1], &found.tokens[..2]].concat());
    }
}

#[test]
fn every_stop_token_stops_it_where_it_stops_the_plain_text() {
    let model = model(0.97);
    let greedy = SamplingOptions { temperature: 1.0, ..SamplingOptions::default() };
    for stop in 0..37 {
        let with = |draft| GenerateOptions { stop_tokens: vec![stop], ..options(greedy, draft) };
        let plain = told(&model, &with(None), &[8]);
        for num_speculations in [1, 4] {
            let found = told(&model, &with(Some(Draft { exit_layer: 2, num_speculations })), &[8]);
            assert_eq!((&found.0.tokens, found.0.reason), (&plain.0.tokens, plain.0.reason), "{stop}");
            assert_eq!((&found.1, &found.2), (&plain.1, &plain.2), "{stop}: the session is left the same");
        }
    }
}

#[test]
fn an_exit_that_is_not_there_is_refused() {
    let model = model(0.0);
    let draft = Some(Draft { exit_layer: LAYERS + 1, num_speculations: 2 });
    let mut session = Session::new(&model, 40).expect("within the context");
    let found = generate(&mut session, &[1], &options(SamplingOptions::default(), draft), &mut |_| {
        ControlFlow::Continue(())
    });
    assert!(found.expect_err("five layers").to_string().contains('6'));
}
