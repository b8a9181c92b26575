//! The adaptive policy: the plain text, sooner where exits agree, and hardly any more work where none does.

use crate::{fixed, model, options, samplings, told};
use offramp_engine::{
    Adaptive, GenerateOptions, SamplingOptions, Session, Speculation, Statistics, Workspace, generate,
};
use offramp_model::{Config, Damped, Format, Formats, Llama};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Deep enough for exits to differ; the head costs as much as three layers, as in the card.
const DEEP: &str = r#"{
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 24,
    "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 832,
    "max_position_embeddings": 320, "rms_norm_eps": 1e-5
}"#;

/// What the layers from `exit_layer` on add is `scale` times as much.
fn deep(exit_layer: usize, scale: f32) -> Arc<Llama> {
    let config = Config::from_json(DEEP, Path::new("config.json")).expect("a valid config");
    let damped = Damped { exit_layer, scale };
    let model = Llama::random_agreeing(config, 3, &Formats::all(Format::F32), damped);
    Arc::new(model.expect("a small model"))
}

/// 256 tokens.
fn statistics(
    model: &Arc<Llama>,
    mut speculation: Speculation,
    sampling: SamplingOptions,
) -> (Vec<u32>, Statistics) {
    let mut session = Session::new(model, 320).expect("within the context");
    let options = GenerateOptions { max_new_tokens: 257, sampling, ..GenerateOptions::default() };
    let go_on = &mut |_| ControlFlow::Continue(());
    let found = generate(&mut session, &[5, 9, 2], &options, &mut speculation, &mut Workspace::new(), go_on)
        .expect("a good prompt");
    (found.tokens, found.statistics)
}

fn hot() -> SamplingOptions {
    // Logits of random weights lie close together: at 1, chance alone would choose, for every exit the same.
    SamplingOptions { temperature: 0.01, seed: 4, ..SamplingOptions::default() }
}

#[test]
fn it_is_the_plain_text() {
    for agreement in [0.0, 0.97] {
        let model = model(agreement);
        for sampling in samplings() {
            let options = options(sampling);
            let (plain, _) = told(&model, &options, &mut Speculation::off(), &[5, 9, 2]);
            for adaptive in [Adaptive::by_bytes(), Adaptive::default()] {
                let mut auto = Speculation::auto(adaptive);
                for _ in 0..3 {
                    assert_eq!(
                        told(&model, &options, &mut auto, &[5, 9, 2]).0,
                        plain,
                        "what it has learnt aside"
                    );
                }
            }
        }
    }
}

/// The last layer overrules everything that was said before.
#[test]
fn where_no_exit_is_ever_right_it_adds_two_percent_of_work() {
    let model = deep(23, 1e3);
    for sampling in [SamplingOptions::default(), hot()] {
        let (text, plain) = statistics(&model, Speculation::off(), sampling);
        let (same, auto) = statistics(&model, Speculation::auto(Adaptive::by_bytes()), sampling);
        assert_eq!(same, text);
        assert_eq!(auto.accepted, 0, "the worst case");
        let added = auto.work - plain.work;
        let share = added.share(&plain.work);
        assert!(share > 0.0 && share <= 0.02, "{share}: {added:?} beyond {:?}", plain.work);
    }
}

/// An exit that is always right, which it has to find: half of the bytes are read for the same text.
#[test]
fn where_an_exit_is_right_it_reads_less() {
    let model = deep(4, 0.0);
    let (text, plain) = statistics(&model, Speculation::off(), hot());
    let (same, auto) = statistics(&model, Speculation::auto(Adaptive::by_bytes()), hot());
    assert_eq!(same, text);
    let best = (1..16).map(|length| statistics(&model, fixed(4, length), hot()).1.work.bytes).min();
    let best = best.expect("some length");
    assert!(2 * best < plain.work.bytes, "{best} of {}", plain.work.bytes);
    let auto = auto.work.bytes;
    assert!(auto as f64 <= 1.25 * best as f64, "{auto} bytes, and {best} with the best length");
}

#[test]
fn below_an_exit_of_the_session_it_drafts_with_less_than_that() {
    let model = deep(4, 0.0);
    let text = |mut speculation| {
        let mut session = Session::new(&model, 320).expect("within the context");
        session.set_exit_layer(12).expect("24 layers");
        let options = GenerateOptions { max_new_tokens: 100, ..options(hot()) };
        let go_on = &mut |_| ControlFlow::Continue(());
        let found =
            generate(&mut session, &[5, 9, 2], &options, &mut speculation, &mut Workspace::new(), go_on)
                .expect("a good prompt");
        (found.tokens, found.statistics.accepted)
    };
    let (plain, auto) = (text(Speculation::off()), text(Speculation::auto(Adaptive::by_bytes())));
    assert_eq!(plain.0, auto.0);
    assert!(auto.1 > 20);
}

/// Both of one shape: what an exit of the one was worth says nothing of the other, nor what one head cost of
/// another.
#[test]
fn what_it_learnt_of_one_model_or_head_it_forgets_with_another() {
    let (agrees, differs) = (deep(4, 0.0), deep(23, 1e3));
    let work = |model: &Arc<Llama>, speculation: &mut Speculation| {
        let mut session = Session::new(model, 320).expect("within the context");
        let options = GenerateOptions { max_new_tokens: 60, ..options(hot()) };
        let go_on = &mut |_| ControlFlow::Continue(());
        generate(&mut session, &[5, 9, 2], &options, speculation, &mut Workspace::new(), go_on)
            .expect("a good prompt")
            .statistics
            .work
    };
    let auto = || Speculation::auto(Adaptive::by_bytes());
    let head = |model: &Arc<Llama>| Some(model.draft_head(Some(Format::Int4), None).expect("a head"));
    let (mut carried, fresh) = (auto(), work(&differs, &mut auto()));
    let first = work(&agrees, &mut carried);
    assert_ne!(work(&agrees, &mut carried), first, "in another text it knows what it learnt");
    assert_eq!(work(&differs, &mut carried), fresh);
    assert_eq!(work(&agrees, &mut carried), first, "and back");
    let with_head = work(&agrees, &mut auto().with_head(head(&agrees)));
    assert_eq!(work(&agrees, &mut carried.with_head(head(&agrees))), with_head);
}
