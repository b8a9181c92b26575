//! A token that leaves where an exit is sure leaves what filling at once would have, and no trace once nobody
//! may leave.

use offramp_engine::{
    ConfidenceExit, Draft, Error, GenerateOptions, SamplingOptions, Session, Speculation, StopReason,
    Workspace, argmax, gap, generate,
};
use offramp_model::{Batch, CacheFormat, Config, Format, Formats, Hidden, KvCache, Llama, Scratch};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const LAYERS: usize = 6;
const CAPACITY: usize = 80;
const CONFIG: &str = r#"{
    "model_type": "llama", "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 61,
    "max_position_embeddings": 80, "rms_norm_eps": 1e-5
}"#;

fn model(formats: &Formats) -> Arc<Llama> {
    let config = Config::from_json(CONFIG, Path::new("config.json")).expect("a valid config");
    Arc::new(Llama::random(config, 5, formats).expect("a small model"))
}

fn plain_model() -> Arc<Llama> {
    model(&Formats::all(Format::F32))
}

fn tokens(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i * 7 + i * 3 + 2) % 61).collect()
}

fn policy(exits: &[usize], threshold: f32) -> Option<ConfidenceExit> {
    Some(ConfidenceExit { exits: exits.to_vec(), threshold })
}

fn session(model: &Arc<Llama>, policy: Option<ConfidenceExit>) -> Session {
    let mut session = Session::new(model, CAPACITY).expect("within the context");
    session.set_confidence_exit(policy).expect("exits that exist");
    session
}

fn plain(model: &Arc<Llama>, exit_layer: usize, tokens: &[u32]) -> Vec<f32> {
    let mut session = Session::new(model, CAPACITY).expect("within the context");
    session.set_exit_layer(exit_layer).expect("an exit that exists");
    session.feed(tokens, &mut Workspace::new()).expect("room").to_vec()
}

/// The policy as it is defined: layers that a token skips are filled when it leaves.
struct Eager<'m> {
    model: &'m Arc<Llama>,
    policy: ConfidenceExit,
    hidden: Hidden,
    cache: KvCache,
    logits: Vec<f32>,
    scratch: Scratch,
}

impl<'m> Eager<'m> {
    fn new(model: &'m Arc<Llama>, policy: Option<ConfidenceExit>) -> Self {
        let policy = policy.expect("a policy");
        let (hidden, cache) = (model.new_hidden(), model.new_cache(CAPACITY));
        Self { model, policy, hidden, cache, logits: Vec::new(), scratch: Scratch::new() }
    }

    fn deep(&mut self, tokens: &[u32]) -> Vec<f32> {
        self.model.embed(tokens, &mut self.hidden).expect("known tokens");
        self.model
            .forward(0..LAYERS, &mut self.hidden, &mut Batch::one(&mut self.cache), &mut self.scratch)
            .expect("room");
        self.model.head(&self.hidden, 0..tokens.len(), &mut self.logits, &mut self.scratch);
        self.logits.clone()
    }

    /// The logits after a token, and where it left.
    fn feed(&mut self, token: u32) -> (Vec<f32>, usize) {
        self.model.embed(&[token], &mut self.hidden).expect("a known token");
        let mut from = 0;
        for &exit in self.policy.exits.iter().chain([&LAYERS]) {
            self.model
                .forward(from..exit, &mut self.hidden, &mut Batch::one(&mut self.cache), &mut self.scratch)
                .expect("room");
            self.model.head(&self.hidden, 0..1, &mut self.logits, &mut self.scratch);
            from = exit;
            if gap(&self.logits) >= self.policy.threshold {
                break;
            }
        }
        self.model
            .fill(from..LAYERS, &self.hidden, &mut Batch::one(&mut self.cache), &mut self.scratch)
            .expect("room");
        (self.logits.clone(), from)
    }
}

/// A lead that the exits have for about every second token.
fn middling(model: &Arc<Llama>, exits: &[usize], tokens: &[u32]) -> f32 {
    let gaps = exits.iter().flat_map(|&exit| (1..=tokens.len()).map(move |end| (exit, end)));
    let mut gaps: Vec<f32> = gaps.map(|(exit, end)| gap(&plain(model, exit, &tokens[..end]))).collect();
    gaps.sort_by(f32::total_cmp);
    gaps[gaps.len() / 2]
}

#[test]
fn filled_when_asked_for_is_filled_at_once() {
    let tokens = tokens(60);
    let all = Format::ALL.map(|format| (format, CacheFormat::F32));
    for (format, kv_cache) in all.into_iter().chain([(Format::Int8, CacheFormat::F16)]) {
        let model = model(&Formats { kv_cache, ..Formats::all(format) });
        for exits in [&[2][..], &[1, 3], &[1, 2, 4], &[3, 5], &[1, 2, 3, 4, 5]] {
            let policy = policy(exits, middling(&model, exits, &tokens));
            let (mut eager, mut lazy) = (Eager::new(&model, policy.clone()), session(&model, policy));
            let prompt = eager.deep(&tokens[..4])[3 * 61..].to_vec();
            assert_eq!(
                lazy.feed(&tokens[..4], &mut Workspace::new()).expect("room"),
                prompt,
                "the prompt goes the whole way"
            );
            assert_eq!(lazy.left_at(), LAYERS);
            for (position, &token) in tokens.iter().enumerate().skip(4) {
                let (logits, depth) = eager.feed(token);
                assert_eq!(
                    lazy.feed(&[token], &mut Workspace::new()).expect("room"),
                    logits,
                    "{format} {exits:?} at {position}"
                );
                assert_eq!(lazy.left_at(), depth);
            }
            let depths = lazy.depths().expect("a policy").clone();
            assert!(depths.counts().iter().all(|&(_, tokens)| tokens > 0), "every way is taken: {depths:?}");
            assert_eq!(depths.counts().last().expect("the end").0, LAYERS);
            assert_eq!(depths.tokens(), 56);
            // What comes together goes the whole way, over all that was filled.
            let together = eager.deep(&tokens[..5]);
            assert_eq!(
                lazy.feed_each(&tokens[..5], &mut Workspace::new()).expect("room"),
                together,
                "{format} {exits:?}"
            );
            assert_eq!((lazy.left_at(), lazy.depths()), (LAYERS, Some(&depths)));
        }
    }
}

#[test]
fn who_never_leaves_has_the_plain_logits() {
    let (model, tokens) = (plain_model(), tokens(30));
    let (mut never, mut none) = (session(&model, policy(&[1, 4], f32::INFINITY)), session(&model, None));
    for &token in &tokens {
        assert_eq!(
            never.feed(&[token], &mut Workspace::new()).expect("room"),
            none.feed(&[token], &mut Workspace::new()).expect("room")
        );
        assert_eq!(never.left_at(), LAYERS);
    }
    let depths = never.depths().expect("a policy");
    assert_eq!(depths.counts(), [(1, 0), (4, 0), (LAYERS, 30)]);
    assert_eq!(depths.mean(), Some(6.0));
    assert_eq!(none.depths(), None);
    assert_eq!(none.left_at(), LAYERS);
}

#[test]
fn who_always_leaves_is_a_session_that_stops_there() {
    let (model, tokens) = (plain_model(), tokens(30));
    for threshold in [0.0, f32::NEG_INFINITY] {
        let (mut always, mut workspace) = (session(&model, policy(&[3, 5], threshold)), Workspace::new());
        for end in 1..=tokens.len() {
            let logits = always.feed(&tokens[end - 1..end], &mut workspace).expect("room");
            assert_eq!(logits, plain(&model, 3, &tokens[..end]), "layers up to there miss nothing");
            assert_eq!(always.left_at(), 3);
        }
        assert_eq!(always.depths().expect("a policy").mean(), Some(3.0));
        // The calls that this takes, and no others.
        let (mut hidden, mut cache) = (model.new_hidden(), model.new_cache(CAPACITY));
        let (mut left, mut logits, mut scratch) = (model.new_hidden(), Vec::new(), Scratch::new());
        for &token in &tokens {
            model.embed(&[token], &mut hidden).expect("a known token");
            model.forward(0..3, &mut hidden, &mut Batch::one(&mut cache), &mut scratch).expect("room");
            model.head(&hidden, 0..1, &mut logits, &mut scratch);
            left.append(&hidden, 0..1);
        }
        assert_eq!(workspace.work(), scratch.work(), "nothing is filled for nobody");
        // Until a token goes deeper.
        always.feed(&tokens[..2], &mut workspace).expect("room");
        for layers in [3..5, 5..6] {
            model.fill(layers, &left, &mut Batch::one(&mut cache), &mut scratch).expect("room");
        }
        model.embed(&tokens[..2], &mut hidden).expect("known tokens");
        model.forward(0..6, &mut hidden, &mut Batch::one(&mut cache), &mut scratch).expect("room");
        model.head(&hidden, 1..2, &mut logits, &mut scratch);
        assert_eq!(workspace.work(), scratch.work());
    }
}

#[test]
fn truncating_leaves_no_trace() {
    let (model, tokens) = (plain_model(), tokens(40));
    let exits = [1, 2, 4];
    let policy = policy(&exits, middling(&model, &exits, &tokens));
    let straight = |tokens: &[u32]| {
        let mut session = session(&model, policy.clone());
        tokens
            .iter()
            .map(|&token| session.feed(&[token], &mut Workspace::new()).expect("room").to_vec())
            .collect::<Vec<_>>()
    };
    // To every length from every other, over states that wait and others that were filled.
    for cut in 0..30 {
        let mut cutting = session(&model, policy.clone());
        for from in [30, 23, 11] {
            for &token in &tokens[cutting.tokens().len()..from.max(cut)] {
                cutting.feed(&[token], &mut Workspace::new()).expect("room");
            }
            cutting.truncate(cut);
        }
        let other: Vec<u32> = tokens[..cut].iter().chain(&tokens[31..]).copied().collect();
        let expected = straight(&other);
        for (position, &token) in other.iter().enumerate().skip(cut) {
            assert_eq!(
                cutting.feed(&[token], &mut Workspace::new()).expect("room"),
                expected[position],
                "{position} after {cut}"
            );
        }
    }
}

#[test]
fn the_newest_token_can_be_asked_again_and_goes_the_whole_way() {
    let (model, tokens) = (plain_model(), tokens(12));
    let policy = policy(&[2, 4], 0.0);
    let (mut eager, mut lazy) = (Eager::new(&model, policy.clone()), session(&model, policy));
    for &token in &tokens {
        eager.feed(token);
        lazy.feed(&[token], &mut Workspace::new()).expect("room");
    }
    eager.cache.truncate(11);
    assert_eq!(lazy.feed(&[], &mut Workspace::new()).expect("tokens"), eager.deep(&tokens[11..]));
    assert_eq!((lazy.tokens(), lazy.left_at()), (&tokens[..], LAYERS));
    let after = eager.feed(9);
    assert_eq!((lazy.feed(&[9], &mut Workspace::new()).expect("room").to_vec(), lazy.left_at()), after);
}

#[test]
fn turned_off_every_token_is_what_it_would_have_been() {
    let (model, tokens) = (plain_model(), tokens(40));
    let exits = [1, 3];
    let threshold = middling(&model, &exits, &tokens);
    for prompt in [1, 6] {
        let mut session = session(&model, policy(&exits, threshold));
        session.feed(&tokens[..prompt], &mut Workspace::new()).expect("room");
        tokens[prompt..20]
            .iter()
            .for_each(|&token| drop(session.feed(&[token], &mut Workspace::new()).expect("room").to_vec()));
        session.set_confidence_exit(None).expect("none");
        for end in 21..30 {
            let logits = session.feed(&tokens[end - 1..end], &mut Workspace::new()).expect("room").to_vec();
            assert_eq!(logits, plain(&model, LAYERS, &tokens[..end]));
        }
        // Another policy begins with what is true, too, after a token that carries those before it up.
        session.set_confidence_exit(policy(&[2], 0.0)).expect("exits that exist");
        session.feed(&tokens[29..30], &mut Workspace::new()).expect("room");
        session.set_confidence_exit(policy(&[3], f32::INFINITY)).expect("exits that exist");
        for end in 31..40 {
            let logits = session.feed(&tokens[end - 1..end], &mut Workspace::new()).expect("room").to_vec();
            assert_eq!(logits, plain(&model, LAYERS, &tokens[..end]));
        }
    }
}

#[test]
fn the_first_that_left_is_forgotten_with_its_token() {
    let (model, tokens) = (plain_model(), tokens(14));
    let mut session = session(&model, policy(&[2], 0.0));
    session.feed(&tokens[..10], &mut Workspace::new()).expect("room");
    session.feed(&tokens[10..11], &mut Workspace::new()).expect("room");
    session.truncate(3);
    tokens[3..13]
        .iter()
        .for_each(|&token| drop(session.feed(&[token], &mut Workspace::new()).expect("room").to_vec()));
    session.feed(&[], &mut Workspace::new()).expect("tokens"); // deep, over what is filled
    session.set_confidence_exit(None).expect("none");
    assert_eq!(
        session.feed(&tokens[13..], &mut Workspace::new()).expect("room"),
        plain(&model, LAYERS, &tokens)
    );
}

#[test]
fn at_another_depth_tokens_that_left_are_run_again() {
    let (model, tokens) = (plain_model(), tokens(40));
    let mut session = session(&model, policy(&[1, 3], 0.0));
    session.feed(&tokens[..5], &mut Workspace::new()).expect("room");
    session.feed(&tokens[5..6], &mut Workspace::new()).expect("room");
    let mut fed = 6;
    for exit_layer in [4, 5, 4, 6] {
        session.set_exit_layer(exit_layer).expect("above the exits");
        // It comes with others that have to be run again, and none of them leaves.
        let logits = session.feed(&tokens[fed..=fed], &mut Workspace::new()).expect("room").to_vec();
        fed += 1;
        assert_eq!(session.left_at(), exit_layer);
        assert_eq!(logits, plain(&model, exit_layer, &tokens[..fed]));
        for _ in 0..3 {
            session.feed(&tokens[fed..=fed], &mut Workspace::new()).expect("room");
            fed += 1;
            assert_eq!(session.left_at(), 1);
        }
        session.set_exit_layer(exit_layer).expect("the same");
        session.feed(&tokens[fed..=fed], &mut Workspace::new()).expect("room");
        fed += 1;
        assert_eq!(session.left_at(), 1, "nothing has changed");
    }
    session.set_confidence_exit(policy(&[1, 3], f32::INFINITY)).expect("exits that exist");
    session.feed(&[7, 8], &mut Workspace::new()).expect("room");
    for exit_layer in [6, 4, 4, 5] {
        session.set_exit_layer(exit_layer).expect("above the exits");
        session.feed(&[9], &mut Workspace::new()).expect("room");
    }
    let counts = session.depths().expect("a policy").counts();
    assert_eq!(counts, [(1, 0), (3, 0), (4, 2), (6, 1)], "at 5 it came with others");
    for exit_layer in [1, 2, 3] {
        assert!(matches!(session.set_exit_layer(exit_layer), Err(Error::ConfidenceExits { .. })));
    }
    assert_eq!(session.exit_layer(), 5);
}

#[test]
fn exits_that_no_token_can_leave_at_are_refused() {
    let model = plain_model();
    let mut session = session(&model, policy(&[2, 4], 0.5));
    for exits in [&[][..], &[0], &[0, 2], &[6], &[2, 6], &[2, usize::MAX], &[3, 2], &[2, 2]] {
        let error = session.set_confidence_exit(policy(exits, 0.5)).expect_err("no exits");
        assert!(matches!(&error, Error::ConfidenceExits { exits: found, depth: 6 } if found == exits));
        let message = error.to_string();
        assert!(message.contains(&format!("{exits:?}")) && !message.contains('\n'), "{message}");
    }
    let refused = session.set_confidence_exit(policy(&[2], f32::NAN));
    assert!(matches!(refused, Err(Error::ConfidenceThreshold)));
    assert_eq!(session.confidence_exit(), policy(&[2, 4], 0.5).as_ref(), "as it was");
}

#[test]
fn what_does_not_fit_leaves_the_session_as_it_was() {
    let model = plain_model();
    let mut session = Session::new(&model, 8).expect("within the context");
    session.set_confidence_exit(policy(&[2], 0.0)).expect("an exit that exists");
    assert!(matches!(session.feed(&[], &mut Workspace::new()), Err(Error::NoTokens)));
    for token in 1..=7 {
        session.feed(&[token], &mut Workspace::new()).expect("room");
    }
    assert!(session.feed(&[61], &mut Workspace::new()).is_err(), "61 tokens: 0 to 60");
    assert!(session.feed(&[1, 2], &mut Workspace::new()).is_err(), "9 in 8");
    let workspace = &mut Workspace::new();
    assert_eq!(session.feed(&[8], workspace).expect("room"), plain(&model, 2, &[1, 2, 3, 4, 5, 6, 7, 8]));
    let full = session.feed(&[9], workspace);
    assert!(matches!(full, Err(Error::ContextFull { tokens: 9, context: 8 })));
    assert_eq!(session.depths().expect("a policy").tokens(), 8);
}

fn options(max_new_tokens: usize) -> GenerateOptions {
    let sampling = SamplingOptions::default();
    GenerateOptions { max_new_tokens, sampling, ..GenerateOptions::default() }
}

#[test]
fn a_text_is_generated_by_those_who_are_sure() {
    let (model, tokens) = (plain_model(), tokens(40));
    let exits = [1, 3];
    let policy = policy(&exits, middling(&model, &exits, &tokens));
    let (mut eager, mut lazy) = (Eager::new(&model, policy.clone()), session(&model, policy));
    let (go_on, mut workspace) = (&mut |_| ControlFlow::Continue(()), Workspace::new());
    let generation =
        generate(&mut lazy, &tokens[..5], &options(40), &mut Speculation::off(), &mut workspace, go_on);
    let generation = generation.expect("a good prompt");
    assert_eq!((generation.tokens.len(), generation.reason), (40, StopReason::Length));
    let mut expected = vec![argmax(&eager.deep(&tokens[..5])[4 * 61..])];
    while expected.len() < 40 {
        expected.push(argmax(&eager.feed(expected[expected.len() - 1]).0));
    }
    assert_eq!(generation.tokens, expected);
    assert_eq!(lazy.depths().expect("a policy").tokens(), 39);
    assert_eq!(generation.statistics.work, workspace.work());
}

#[test]
fn drafts_and_a_confidence_exit_exclude_each_other() {
    let (model, tokens) = (plain_model(), tokens(5));
    let mut lazy = session(&model, policy(&[2], 0.5));
    let go_on = &mut |_| ControlFlow::Continue(());
    let drafts = |num_speculations| Speculation::fixed(Draft { exit_layer: 2, num_speculations });
    let workspace = &mut Workspace::new();
    for mut speculation in [drafts(3), Speculation::auto(Default::default())] {
        let refused = generate(&mut lazy, &tokens, &options(9), &mut speculation, workspace, go_on);
        assert!(matches!(refused, Err(Error::ConfidenceWithDrafts)) && lazy.tokens().is_empty());
    }
    let found = generate(&mut lazy, &tokens, &options(9), &mut drafts(0), workspace, go_on);
    found.expect("nothing is drafted");
}
