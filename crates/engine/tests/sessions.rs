//! A session's logits depend on its tokens and its exit layer alone.

use offramp_engine::{
    Error, GenerateOptions, NewToken, Origin, SamplingOptions, Session, Speculation, StopReason, Workspace,
    generate,
};
use offramp_model::{Config, Llama};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const CONFIG: &str = r#"{
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 23,
    "max_position_embeddings": 40, "rms_norm_eps": 1e-5
}"#;

fn model() -> Arc<Llama> {
    let config = Config::from_json(CONFIG, Path::new("config.json")).expect("a valid config");
    let mut state = 3u32;
    Arc::new(
        Llama::from_weights(config, |spec| {
            Ok((0..spec.len())
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 23) as f32 - 1.0
                })
                .collect())
        })
        .expect("weights of the right sizes"),
    )
}

fn fresh(model: &Arc<Llama>, exit_layer: usize, tokens: &[u32]) -> Vec<f32> {
    let mut session = Session::new(model, 40).expect("within the context");
    session.set_exit_layer(exit_layer).expect("an exit that exists");
    session.feed(tokens, &mut Workspace::new()).expect("room for the tokens").to_vec()
}

#[test]
fn the_exit_layer_may_move_at_any_time() {
    let model = model();
    let tokens: Vec<u32> = (0..30).map(|i| i * 7 % 23).collect();
    let mut session = Session::new(&model, 40).expect("within the context");
    let mut fed = 0;
    // Down, up past layers that saw nothing, up to the top, down again, up by one.
    for (exit_layer, count) in [(4, 5), (2, 3), (6, 1), (1, 4), (3, 2), (6, 6), (5, 1), (6, 2)] {
        session.set_exit_layer(exit_layer).expect("an exit that exists");
        for _ in 0..count {
            let logits = session.feed(&tokens[fed..=fed], &mut Workspace::new()).expect("room").to_vec();
            fed += 1;
            assert_eq!(logits, fresh(&model, exit_layer, &tokens[..fed]), "exit {exit_layer} after {fed}");
        }
    }
    // The same tokens seen from another depth, without a new one.
    for exit_layer in [2, 6, 1] {
        session.set_exit_layer(exit_layer).expect("an exit that exists");
        assert_eq!(
            session.feed(&[], &mut Workspace::new()).expect("tokens"),
            fresh(&model, exit_layer, &tokens[..fed])
        );
    }
}

#[test]
fn truncating_leaves_no_trace() {
    let model = model();
    let mut session = Session::new(&model, 40).expect("within the context");
    session.feed(&[1, 2, 3, 4, 5, 6], &mut Workspace::new()).expect("room");
    session.set_exit_layer(2).expect("an exit that exists");
    session.feed(&[7, 8], &mut Workspace::new()).expect("room");
    session.truncate(4);
    assert_eq!(session.tokens(), [1, 2, 3, 4]);
    session.set_exit_layer(6).expect("an exit that exists");
    assert_eq!(session.feed(&[9], &mut Workspace::new()).expect("room"), fresh(&model, 6, &[1, 2, 3, 4, 9]));
}

#[test]
fn an_exit_that_does_not_exist_is_refused() {
    let model = model();
    let mut session = Session::new(&model, 8).expect("within the context");
    for exit_layer in [0, 7, usize::MAX] {
        let message = session.set_exit_layer(exit_layer).expect_err("six layers").to_string();
        assert!(message.contains(&exit_layer.to_string()) && message.contains('6'), "{message}");
    }
    assert_eq!(session.exit_layer(), 6);
}

#[test]
fn what_does_not_fit_leaves_the_session_as_it_was() {
    let model = model();
    assert!(matches!(Session::new(&model, 41), Err(Error::ContextFull { tokens: 41, context: 40 })));
    let mut session = Session::new(&model, 8).expect("within the context");
    assert!(matches!(session.feed(&[], &mut Workspace::new()), Err(Error::NoTokens)));
    session.feed(&[1, 2, 3], &mut Workspace::new()).expect("room");
    assert!(matches!(
        session.feed(&[0; 6], &mut Workspace::new()),
        Err(Error::ContextFull { tokens: 9, context: 8 })
    ));
    assert!(session.feed(&[4, 23], &mut Workspace::new()).is_err(), "23 tokens: 0 to 22");
    assert_eq!(session.tokens(), [1, 2, 3]);
    assert_eq!(session.feed(&[4], &mut Workspace::new()).expect("room"), fresh(&model, 6, &[1, 2, 3, 4]));
}

fn options(max_new_tokens: usize, temperature: f32) -> GenerateOptions {
    let sampling = SamplingOptions { temperature, seed: 11, ..SamplingOptions::default() };
    GenerateOptions { max_new_tokens, sampling, ..GenerateOptions::default() }
}

fn run(model: &Arc<Llama>, capacity: usize, options: &GenerateOptions) -> (Vec<u32>, StopReason) {
    let mut session = Session::new(model, capacity).expect("within the context");
    let mut heard = Vec::new();
    let mut listen = |NewToken { id: token, origin, .. }| {
        assert_eq!(origin, Origin::Chosen);
        heard.push(token);
        ControlFlow::Continue(())
    };
    let generation =
        generate(&mut session, &[1, 2], options, &mut Speculation::off(), &mut Workspace::new(), &mut listen)
            .expect("a valid prompt");
    assert_eq!(generation.tokens, heard);
    assert_eq!(generation.statistics.new_tokens, heard.len());
    (heard, generation.reason)
}

#[test]
fn greedy_generation_is_the_argmax_of_each_full_pass() {
    let model = model();
    let (tokens, reason) = run(&model, 20, &options(10, 0.0));
    assert_eq!((tokens.len(), reason), (10, StopReason::Length));
    let mut text = vec![1, 2];
    for token in tokens {
        assert_eq!(token, offramp_engine::argmax(&fresh(&model, 6, &text)));
        text.push(token);
    }
}

#[test]
fn a_generation_ends_where_it_should() {
    let model = model();
    assert_eq!(run(&model, 20, &options(0, 0.0)), (vec![], StopReason::Length));
    let (tokens, reason) = run(&model, 9, &options(100, 0.0));
    // Seven tokens after the prompt fill the session; one more is predicted from the last of them.
    assert_eq!((tokens.len(), reason), (8, StopReason::ContextFull));
    let stop = GenerateOptions { stop_tokens: vec![tokens[3]], ..options(100, 0.0) };
    let first = tokens.iter().position(|token| *token == tokens[3]).expect("it is there");
    assert_eq!(run(&model, 20, &stop), (tokens[..first].to_vec(), StopReason::StopToken));

    let mut session = Session::new(&model, 20).expect("within the context");
    let mut left = 3;
    let mut stop_after_three = |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut off = Speculation::off();
    let generation = generate(
        &mut session,
        &[1, 2],
        &options(100, 0.0),
        &mut off,
        &mut Workspace::new(),
        &mut stop_after_three,
    );
    let generation = generation.expect("a valid prompt");
    assert_eq!((generation.tokens.len(), generation.reason), (3, StopReason::Stopped));
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let model = model();
    let (first, _) = run(&model, 40, &options(30, 1.0));
    assert_eq!(run(&model, 40, &options(30, 1.0)).0, first);
    let mut other = options(30, 1.0);
    other.sampling.seed = 12;
    assert_ne!(run(&model, 40, &other).0, first);
}

#[test]
fn an_empty_or_too_long_prompt_is_refused() {
    let model = model();
    let mut session = Session::new(&model, 8).expect("within the context");
    let mut ignore = |_| ControlFlow::Continue(());
    let mut told = |prompt: &[u32]| {
        generate(
            &mut session,
            prompt,
            &options(3, 0.0),
            &mut Speculation::off(),
            &mut Workspace::new(),
            &mut ignore,
        )
    };
    assert!(matches!(told(&[]), Err(Error::NoTokens)));
    let error = told(&[1; 9]).expect_err("9 tokens in 8");
    assert_eq!(error.to_string(), "9 tokens do not fit the context of 8: shorten the prompt");
    assert!(session.tokens().is_empty());
}

/// A vocabulary that was rounded up: the model may like the ids beyond the text's, and yet none comes.
#[test]
fn ids_that_stand_for_no_text_are_never_chosen() {
    let model = model();
    for temperature in [0.0, 1.5] {
        let chosen = |token_limit| {
            let mut session = Session::new(&model, 40).expect("within the context");
            let options = GenerateOptions { token_limit, ..options(30, temperature) };
            let go_on = &mut |_| ControlFlow::Continue(());
            generate(
                &mut session,
                &[1, 2, 3],
                &options,
                &mut Speculation::off(),
                &mut Workspace::new(),
                go_on,
            )
            .expect("room")
            .tokens
        };
        assert!(chosen(None).iter().any(|&token| token >= 9), "it would choose them");
        assert!(chosen(Some(9)).iter().all(|&token| token < 9));
        assert_eq!(chosen(Some(99)), chosen(None));
    }
}

#[test]
fn tokens_that_are_verified_together_have_the_logits_of_one_by_one() {
    let model = model();
    let tokens: Vec<u32> = (0..9).map(|i| i * 5 % 23).collect();
    let mut session = Session::new(&model, 40).expect("within the context");
    session.feed(&tokens[..3], &mut Workspace::new()).expect("room");
    let one_by_one: Vec<f32> = (4..=9).flat_map(|end| fresh(&model, 6, &tokens[..end])).collect();
    assert_eq!(session.feed_each(&tokens[3..], &mut Workspace::new()).expect("room"), one_by_one);
    assert!(matches!(session.feed_each(&[], &mut Workspace::new()), Err(Error::NoTokens)));
}
