//! After a call that failed a session holds what it held, and goes on as if nobody had called.

use offramp_engine::{
    Adaptive, ConfidenceExit, Draft, Error, GenerateOptions, NewToken, Sampler, SamplingOptions, Session,
    Speculation, Workspace, generate,
};
use offramp_model::{Config, Formats, Llama};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const VOCAB: u32 = 41;
const PROMPT: [u32; 3] = [5, 9, 2];

fn config(json: &str) -> Config {
    Config::from_json(json, Path::new("config.json")).expect("a valid config")
}

/// A model; `poison` is a token whose embedding is no number, so that all that follows it is none.
fn model(poison: Option<u32>) -> Arc<Llama> {
    let config = config(
        r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4,
            "num_attention_heads": 2, "vocab_size": 41, "max_position_embeddings": 64}"#,
    );
    let mut state = 5u32;
    Arc::new(
        Llama::from_weights(config, |spec| {
            let mut number = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            let mut values: Vec<f32> = (0..spec.len()).map(|_| number()).collect();
            if let Some(token) = poison.filter(|_| spec.name == "model.embed_tokens.weight") {
                values[token as usize * 16..][..16].fill(f32::NAN);
            }
            Ok(values)
        })
        .expect("weights of the right sizes"),
    )
}

fn options(token_limit: Option<usize>) -> GenerateOptions {
    let sampling = SamplingOptions { temperature: 1.0, seed: 4, ..SamplingOptions::default() };
    GenerateOptions { max_new_tokens: 30, token_limit, sampling, ..GenerateOptions::default() }
}

fn tell(session: &mut Session, speculation: &mut Speculation) -> (Vec<u32>, Option<Error>) {
    let mut heard = Vec::new();
    let told = generate(
        session,
        &PROMPT,
        &options(None),
        speculation,
        &mut Workspace::new(),
        &mut |NewToken { id: token, .. }| {
            heard.push(token);
            ControlFlow::Continue(())
        },
    );
    (heard, told.err())
}

/// Wherever in a text the arithmetic fails, and however it is drafted.
#[test]
fn a_text_that_fails_is_forgotten() {
    let whole = model(None);
    let plain = tell(&mut Session::new(&whole, 60).expect("room"), &mut Speculation::off()).0;
    let mut seen = [&PROMPT[..], &[1, 3]].concat();
    let new = plain.iter().enumerate().filter(|(_, token)| {
        let first = !seen.contains(token);
        seen.push(**token);
        first
    });
    let new: Vec<(usize, u32)> = new.map(|(index, token)| (index, *token)).collect();
    assert!(new.len() > 5, "a text of many words: {plain:?}");
    for (index, token) in new {
        let model = model(Some(token));
        let fixed = |exit_layer, num_speculations| Speculation::fixed(Draft { exit_layer, num_speculations });
        let ways = [Speculation::off(), fixed(1, 3), fixed(4, 2), Speculation::auto(Adaptive::by_bytes())];
        for (way, mut speculation) in ways.into_iter().enumerate() {
            let mut session = Session::new(&model, 60).expect("room");
            session.feed(&[1, 3], &mut Workspace::new()).expect("room");
            for _ in 0..2 {
                session.truncate(0);
                let logits = session.feed(&[1, 3], &mut Workspace::new()).expect("room").to_vec();
                let (_, error) = tell(&mut session, &mut speculation);
                // With two tokens before it the text is another, and may not come to that token.
                if error.is_some() {
                    assert_eq!(session.tokens(), [1, 3], "token {index}, way {way}");
                    assert_eq!(session.feed(&[], &mut Workspace::new()).expect("tokens"), logits);
                }
            }
            session.truncate(0);
            let (heard, error) = tell(&mut session, &mut speculation);
            assert!(matches!(error, Some(Error::NotFinite { .. })), "token {index}, way {way}: {error:?}");
            assert_eq!((heard.as_slice(), session.tokens()), (&plain[..=index], &[][..]), "way {way}");
            // What was no number lies behind the end of the cache, and is not seen.
            let fresh = Session::new(&model, 60)
                .expect("room")
                .feed(&PROMPT, &mut Workspace::new())
                .expect("room")
                .to_vec();
            assert!(fresh.iter().all(|logit| logit.is_finite()));
            assert_eq!(
                session.feed(&PROMPT, &mut Workspace::new()).expect("room"),
                fresh,
                "token {index}, way {way}"
            );
        }
    }
}

/// Room for a context that no machine has is not promised.
#[test]
fn a_session_that_no_machine_holds_is_refused() {
    let config = config(
        r#"{"model_type": "llama", "hidden_size": 2, "intermediate_size": 4, "num_hidden_layers": 2,
            "num_attention_heads": 1, "head_dim": 1048576, "vocab_size": 8,
            "max_position_embeddings": 1073741824}"#,
    );
    let model = Arc::new(Llama::random(config, 1, &Formats::default()).expect("a small model"));
    let refused = Session::new(&model, 1 << 30).expect_err("more memory than there is").to_string();
    assert!(refused.contains("1073741824 positions"), "{refused}");
    Session::new(&model, 4)
        .expect("of what there is")
        .feed(&[1, 2, 3], &mut Workspace::new())
        .expect("ids of the vocabulary");
}

#[test]
fn an_unknown_token_changes_nothing_whoever_asks() {
    let model = model(None);
    let mut session = Session::new(&model, 60).expect("room");
    session.feed(&PROMPT, &mut Workspace::new()).expect("room");
    for confident in [None, Some(ConfidenceExit { exits: vec![2], threshold: 0.0 })] {
        session.set_confidence_exit(confident).expect("an exit");
        let fresh = session.feed(&[], &mut Workspace::new()).expect("tokens").to_vec();
        session.feed(&[VOCAB], &mut Workspace::new()).expect_err("beyond the vocabulary");
        session.feed(&[4, VOCAB], &mut Workspace::new()).expect_err("beyond the vocabulary");
        session.feed_each(&[4, VOCAB], &mut Workspace::new()).expect_err("beyond the vocabulary");
        let bad = [4, VOCAB];
        let told = generate(
            &mut session,
            &bad,
            &options(None),
            &mut Speculation::off(),
            &mut Workspace::new(),
            &mut |_| ControlFlow::Continue(()),
        );
        told.expect_err("beyond the vocabulary");
        assert_eq!(session.tokens(), PROMPT);
        assert_eq!(session.feed(&[], &mut Workspace::new()).expect("tokens"), fresh);
    }
}

#[test]
fn where_nothing_may_be_chosen_nothing_is() {
    let model = model(None);
    let mut session = Session::new(&model, 60).expect("room");
    let mut on_token = |_| -> ControlFlow<()> { panic!("there is none") };
    let told = generate(
        &mut session,
        &PROMPT,
        &options(Some(0)),
        &mut Speculation::off(),
        &mut Workspace::new(),
        &mut on_token,
    );
    assert!(matches!(told, Err(Error::NoChoice)));
    assert!(session.tokens().is_empty());
    for temperature in [0.0, 1.0] {
        let options = SamplingOptions { temperature, top_k: 1, top_p: 0.5, ..SamplingOptions::default() };
        let mut sampler = Sampler::new(options).expect("good options");
        assert!(matches!(sampler.next(&[], &PROMPT), Err(Error::NoChoice)));
    }
}
