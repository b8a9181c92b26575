//! Every family against transformers: logits at every exit and greedy text; and exits, drafts, many texts and
//! folders on all of them.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_engine::{
    ConfidenceExit, Draft, GenerateOptions, Request, SamplingOptions, Scheduler, SchedulerOptions, Session,
    Speculation, Workspace, generate,
};
use offramp_kernels as kernels;
use offramp_model::{Config, Format, Formats, Llama, Weights, checkpoint};
use offramp_tests::golden::{FAMILIES, Fixture, assert_close, ids};
use offramp_tests::tables::assert_passes_with_every_table;
use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

/// As in golden_model.rs: logits are of unit size.
const TOLERANCE: f64 = 1e-5;
/// Tokens of the greedy texts.
const NEW_TOKENS: usize = 20;

fn fixture(name: &str) -> Fixture {
    Fixture::new(&format!("families/{name}"))
}

fn load(name: &str) -> Arc<Llama> {
    Arc::new(Llama::load(fixture(name).folder(), &Formats::all(Format::F32)).unwrap())
}

/// The prompt of a family's greedy text, and the text.
fn greedy(name: &str) -> (Vec<u32>, Vec<u32>) {
    let expected = fixture(name).json();
    (ids(&expected["prompt"]), ids(&expected["greedy"]))
}

fn options(sampling: SamplingOptions) -> GenerateOptions {
    GenerateOptions { max_new_tokens: NEW_TOKENS, sampling, ..GenerateOptions::default() }
}

/// The text that follows a prompt.
fn text(mut session: Session, prompt: &[u32], sampling: SamplingOptions, mut how: Speculation) -> Vec<u32> {
    let mut heard = Vec::new();
    let mut hear = |token: offramp_engine::NewToken| {
        heard.push(token.id);
        ControlFlow::Continue(())
    };
    let workspace = &mut Workspace::new();
    generate(&mut session, prompt, &options(sampling), &mut how, workspace, &mut hear).unwrap();
    heard
}

fn session(model: &Arc<Llama>) -> Session {
    Session::new(model, model.config().context().min(64)).unwrap()
}

fn drafts(exit_layer: usize, num_speculations: usize) -> Speculation {
    Speculation::fixed(Draft { exit_layer, num_speculations })
}

#[test]
fn a_familys_logits_at_every_exit_are_transformers() {
    for name in FAMILIES {
        let (model, tensors) = (load(name), fixture(name).tensors());
        let (shape, tokens) = tensors.ids("input_ids");
        let vocab = model.config().vocab_size;
        for exit_layer in 1..=model.config().num_hidden_layers {
            let (_, expected) = tensors.floats(&format!("logits.exit_layer_{exit_layer}"));
            for (tokens, expected) in tokens.chunks(shape[1]).zip(expected.chunks(shape[1] * vocab)) {
                // As prompts come, in pieces, and as text does.
                for piece in [shape[1], 5, 1] {
                    let mut session = session(&model);
                    session.set_exit_layer(exit_layer).unwrap();
                    let (mut workspace, mut found) = (Workspace::new(), Vec::new());
                    for tokens in tokens.chunks(piece) {
                        found.extend_from_slice(session.feed_each(tokens, &mut workspace).unwrap());
                    }
                    let what =
                        format!("{name}, exit {exit_layer}, {piece} a call, {}", kernels::active().name);
                    assert_close(&what, &found, expected, TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn every_kernels_table_gives_a_familys_logits() {
    assert_passes_with_every_table("a_familys_logits_at_every_exit_are_transformers");
}

#[test]
fn a_familys_greedy_text_is_transformers() {
    for name in FAMILIES {
        let (model, (prompt, expected)) = (load(name), greedy(name));
        let found = text(session(&model), &prompt, SamplingOptions::default(), Speculation::off());
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn drafted_text_is_the_plain_text_of_every_family() {
    let hot = SamplingOptions { temperature: 1.5, seed: 7, ..SamplingOptions::default() };
    for name in FAMILIES {
        let (model, (prompt, expected)) = (load(name), greedy(name));
        let plain = text(session(&model), &prompt, hot, Speculation::off());
        for (exit_layer, num_speculations) in [(1, 1), (1, 4), (1, 15)] {
            let how = || drafts(exit_layer, num_speculations);
            let found = text(session(&model), &prompt, SamplingOptions::default(), how());
            assert_eq!(found, expected, "{name}, drafts of {num_speculations}");
            assert_eq!(text(session(&model), &prompt, hot, how()), plain, "{name}, sampled");
        }
    }
}

#[test]
fn exits_of_every_family_are_those_of_a_session_that_stood_there() {
    for name in FAMILIES {
        let (model, (prompt, expected)) = (load(name), greedy(name));
        let last = model.config().num_hidden_layers;
        // The greedy text of the first exit, one token after the other.
        let mut early = session(&model);
        early.set_exit_layer(1).unwrap();
        let (mut workspace, mut one_by_one, mut next) = (Workspace::new(), Vec::new(), prompt.clone());
        for _ in 0..NEW_TOKENS {
            let logits = early.feed(&next, &mut workspace).unwrap();
            next = vec![offramp_engine::argmax(logits) as u32];
            one_by_one.extend_from_slice(&next);
        }
        let mut at_first = session(&model);
        at_first.set_exit_layer(1).unwrap();
        let found = text(at_first, &prompt, SamplingOptions::default(), Speculation::off());
        assert_eq!(found, one_by_one, "{name}, exit 1");
        // What left early is run again when the exit moves up.
        let logits = |session: &mut Session| session.feed(&[3], &mut Workspace::new()).unwrap().to_vec();
        early.set_exit_layer(last).unwrap();
        let mut straight = session(&model);
        straight.feed(&[&prompt[..], &one_by_one[..NEW_TOKENS - 1]].concat(), &mut workspace).unwrap();
        assert!(logits(&mut early) == logits(&mut straight), "{name}: from exit 1 to {last}");
        // A threshold that nothing reaches.
        let mut sure = session(&model);
        let exit = ConfidenceExit { exits: (1..last).collect(), threshold: f32::INFINITY };
        sure.set_confidence_exit(Some(exit)).unwrap();
        let found = text(sure, &prompt, SamplingOptions::default(), Speculation::off());
        assert_eq!(found, expected, "{name}, with confidence exits");
    }
}

#[test]
fn many_texts_of_every_family_are_each_its_own() {
    for name in FAMILIES {
        let (model, (prompt, expected)) = (load(name), greedy(name));
        let last = model.config().num_hidden_layers;
        let pieces = SchedulerOptions { max_num_batched_tokens: 5, ..SchedulerOptions::new(256) };
        let mut scheduler = Scheduler::new(&model, pieces).unwrap();
        let mut add = |len: usize, speculation: Speculation| {
            let (prompt, options) = (prompt[..len].to_vec(), options(SamplingOptions::default()));
            let request = Request { prompt, exit_layer: last, confidence: None, speculation, options };
            scheduler.add(request).unwrap()
        };
        let texts = [
            (add(prompt.len(), Speculation::off()), expected.clone()),
            (add(prompt.len(), drafts(1, 3)), expected),
            (add(5, Speculation::off()), {
                text(session(&model), &prompt[..5], SamplingOptions::default(), Speculation::off())
            }),
        ];
        let mut ended = 0;
        while !scheduler.is_idle() {
            for progressed in scheduler.step() {
                let Some(completion) = progressed.ended else { continue };
                let (_, expected) = texts.iter().find(|(id, _)| *id == progressed.id).unwrap();
                assert_eq!(completion.unwrap().tokens, *expected, "{name}");
                ended += 1;
            }
        }
        assert_eq!(ended, texts.len());
    }
}

#[test]
fn what_transformers_wrote_of_a_family_is_saved_again_without_loss() {
    for name in FAMILIES {
        let (fixture, model) = (fixture(name), load(name));
        let weights = Weights::open(fixture.folder(), model.config()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        checkpoint::save(folder.path(), model.config(), &mut |spec| {
            Cow::Owned(weights.take(spec).unwrap().as_slice().to_vec())
        })
        .unwrap();
        assert_eq!(Config::read(&folder.path().join("config.json")).unwrap(), *model.config(), "{name}");
        let again = Arc::new(Llama::load(folder.path(), &Formats::all(Format::F32)).unwrap());
        let (prompt, expected) = greedy(name);
        let found = text(session(&again), &prompt, SamplingOptions::default(), Speculation::off());
        assert_eq!(found, expected, "{name}");
    }
}

/// Eight bits are nearly the floats: what is misplaced would be far off.
#[test]
fn a_quantized_family_says_nearly_what_transformers_says() {
    for name in FAMILIES {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("int8");
        checkpoint::quantize(fixture(name).folder(), &folder, &Formats::all(Format::Int8), &mut |_, _| ())
            .unwrap();
        let model = Arc::new(Llama::load(&folder, &Formats::default()).unwrap());
        assert_eq!(model.formats().layers, Some(Format::Int8));
        let tensors = fixture(name).tensors();
        let (shape, tokens) = tensors.ids("input_ids");
        let last = model.config().num_hidden_layers;
        let (_, expected) = tensors.floats(&format!("logits.exit_layer_{last}"));
        let mut workspace = Workspace::new();
        let found = session(&model).feed_each(&tokens[..shape[1]], &mut workspace).unwrap().to_vec();
        let expected = &expected[..found.len()];
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>();
        let apart = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
        let apart = (apart / square(&mut expected.iter().copied())).sqrt();
        assert!(apart < 0.05, "{name}: {apart}");
    }
}

/// transformers rotates a prompt past the original context by its whole length, and our sessions by each
/// position.
#[test]
fn a_prompt_past_the_original_context_is_refused_where_scaling_is_dynamic() {
    let model = load("dynamic");
    let (original, context) = (model.config().max_position_embeddings, model.config().context());
    assert_eq!((original, context), (16, 48));
    let mut session = Session::new(&model, context).unwrap();
    let mut begin = |prompt: &[u32]| {
        let (how, workspace) = (&mut Speculation::off(), &mut Workspace::new());
        let options = options(SamplingOptions::default());
        generate(&mut session, prompt, &options, how, workspace, &mut |_| ControlFlow::Break(()))
    };
    let message = begin(&[1; 17]).unwrap_err().to_string();
    assert_eq!(message, "17 tokens do not fit the context of 16: shorten the prompt");
    begin(&[1; 16]).unwrap();
}
