//! Layers apart draft, in any format, from any depth; the text is the plain one.

use crate::{LAYERS, fixed, model, options, samplings, told};
use offramp_engine::{
    Adaptive, Error, GenerateOptions, Request, Scheduler, SchedulerOptions, Session, Speculation, Workspace,
};
use offramp_engine::{Progressed, generate};
use offramp_model::{Config, DraftLayers, Format, Llama};
use std::path::Path;
use std::sync::Arc;

fn copy(model: &Llama, layers: usize, format: Format) -> Option<DraftLayers> {
    Some(model.draft_layers(layers, format).expect("a valid copy"))
}

#[test]
fn any_copy_drafts_the_plain_text() {
    for agreement in [0.0, 0.97] {
        let model = model(agreement);
        for sampling in samplings() {
            let options = options(sampling);
            let (plain, _) = told(&model, &options, &mut Speculation::off(), &[5, 9, 2]);
            for format in [Format::F32, Format::Bf16, Format::Int8, Format::Int4] {
                let head = model.draft_head(Some(Format::Int4), None).expect("a valid head");
                for (exit_layer, layers) in [(1, 1), (2, 4), (LAYERS, LAYERS)] {
                    for (length, head) in [(1, None), (4, Some(head.clone())), (60, None)] {
                        let mut speculation = fixed(exit_layer, length)
                            .with_head(head)
                            .with_layers(copy(&model, layers, format));
                        let (text, found) = told(&model, &options, &mut speculation, &[5, 9, 2]);
                        assert_eq!(text, plain, "{format}, {exit_layer} of {layers}, {length}");
                        assert!(found.statistics.drafted > 0);
                    }
                }
            }
        }
    }
}

/// The same arithmetic in another place.
#[test]
fn a_copy_in_the_model_s_format_drafts_what_its_own_layers_do() {
    let model = model(0.97);
    for exit_layer in [2, 3, LAYERS] {
        for length in [1, 3, 7] {
            let drafted = |layers| {
                let mut speculation = fixed(exit_layer, length).with_layers(layers);
                told(&model, &options(samplings()[0]), &mut speculation, &[5, 9, 2]).1.statistics
            };
            let (own, apart) = (drafted(None), drafted(copy(&model, LAYERS, Format::F32)));
            assert_eq!((apart.drafted, apart.accepted), (own.drafted, own.accepted), "{exit_layer}:{length}");
            assert!(own.accepted > 0);
        }
    }
}

/// A model that nobody trained for exits: its own layers draft noise, a copy of all of them does not.
#[test]
fn all_layers_in_fewer_bits_draft_for_any_model() {
    let model = model(0.0);
    let accepted = |mut speculation: Speculation| {
        let found = told(&model, &options(samplings()[0]), &mut speculation, &[5, 9, 2]).1.statistics;
        found.accepted as f64 / found.drafted as f64
    };
    let whole = |format| accepted(fixed(LAYERS, 3).with_layers(copy(&model, LAYERS, format)));
    let (own, int4, int8) = (accepted(fixed(2, 3)), whole(Format::Int4), whole(Format::Int8));
    assert!(int8 > 0.8 && int4 > own + 0.1, "{own} {int4} {int8}");
}

/// The adaptive policy finds it by itself, and its text is the plain one.
#[test]
fn auto_drafts_with_what_pays() {
    for (agreement, copied) in [(0.0, LAYERS), (0.97, LAYERS), (0.97, 2), (0.0, 1)] {
        let model = model(agreement);
        for sampling in samplings() {
            let options = options(sampling);
            let (plain, _) = told(&model, &options, &mut Speculation::off(), &[5, 9, 2]);
            for format in [Format::Int8, Format::Int4] {
                let mut auto =
                    Speculation::auto(Adaptive::by_bytes()).with_layers(copy(&model, copied, format));
                let (text, found) = told(&model, &options, &mut auto, &[5, 9, 2]);
                assert_eq!(text, plain, "{format}, {copied} of {agreement}");
                let by_copies = auto.chosen().iter().filter(|chosen| chosen.copies);
                assert!(by_copies.clone().all(|chosen| chosen.exit_layer <= copied));
                let drafted: usize = by_copies.map(|chosen| chosen.drafted).sum();
                if format == Format::Int8 && copied == LAYERS {
                    assert!(
                        drafted > 10 && found.statistics.accepted > 5,
                        "{agreement}: {:?}",
                        auto.chosen()
                    );
                }
            }
        }
    }
}

#[test]
fn texts_in_company_are_the_same() {
    let model = model(0.97);
    let shared = copy(&model, LAYERS, Format::Int4);
    let plans = [
        fixed(2, 4).with_layers(shared.clone()),
        fixed(LAYERS, 3).with_layers(shared),
        fixed(3, 2).with_layers(copy(&model, 3, Format::Int8)),
        fixed(2, 4),
        Speculation::off(),
    ];
    let mut scheduler = Scheduler::new(&model, SchedulerOptions::new(1024)).expect("memory");
    let mut texts = Vec::new();
    for (index, speculation) in plans.iter().enumerate() {
        let prompt: Vec<u32> = (0..20 + index as u32).map(|token| token * 7 % 37).collect();
        let options = options(samplings()[1]);
        let request = Request {
            prompt,
            exit_layer: LAYERS,
            speculation: speculation.clone(),
            options,
            confidence: None,
        };
        let (plain, _) = told(&model, &request.options, &mut Speculation::off(), &request.prompt);
        texts.push((scheduler.add(request).expect("a good request"), plain.tokens, Vec::new()));
    }
    while !scheduler.is_idle() {
        for Progressed { id, tokens, .. } in scheduler.step() {
            let text = texts.iter_mut().find(|text| text.0 == id).expect("one of them");
            text.2.extend(tokens.iter().map(|token| token.id));
        }
    }
    for (id, plain, found) in texts {
        assert_eq!(found, plain, "{id:?}");
    }
}

#[test]
fn a_copy_that_does_not_fit_is_refused() {
    let (model, alike) = (model(0.97), model(0.97));
    let refused = |speculation: Speculation, model: &Arc<Llama>| {
        let mut session = Session::new(model, 90).expect("within the context");
        let (mut speculation, mut workspace) = (speculation, Workspace::new());
        let options = options(samplings()[0]);
        let nothing = &mut |_| panic!("nothing is said");
        generate(&mut session, &[5, 9, 2], &options, &mut speculation, &mut workspace, nothing)
            .expect_err("no")
    };
    let two = || copy(&model, 2, Format::Int4);
    assert!(matches!(refused(fixed(2, 4).with_layers(two()), &alike), Error::ForeignDraftHead));
    let short = refused(fixed(3, 4).with_layers(two()), &model);
    assert!(matches!(short, Error::TooFewDraftLayers { exit_layer: 3, layers: 2 }));
    assert!(model.draft_layers(0, Format::Int4).is_err() && model.draft_layers(6, Format::Int4).is_err());
    assert!(
        model.draft_layers(2, Format::Ternary).expect_err("ternary").to_string().contains("int4 or int8")
    );
}

/// Every group of weights has one that is far larger than the others and multiplies zero: in int4 nothing
/// but it is left, so that no copy is ever right. The last layer overrules the others, so that no exit is,
/// either.
fn never_right() -> Arc<Llama> {
    let config = r#"{
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 24,
        "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 832,
        "max_position_embeddings": 320, "rms_norm_eps": 1e-5
    }"#;
    let config = Config::from_json(config, Path::new("config.json")).expect("a valid config");
    let mut state = 7u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let model = Llama::from_weights(config, |spec| {
        let of = |part: &str| spec.name.contains(part);
        let normed = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"].into_iter().any(of);
        let scale = if of("layers.23.") && (of("o_proj") || of("down_proj")) { 1e3 } else { 1.0 };
        let value = |index: usize| match index % 32 {
            0 if of("input_layernorm") || of("post_attention_layernorm") => 0.0,
            0 if normed => 1e4,
            _ if of("norm") => 1.0,
            _ => scale * random(),
        };
        Ok((0..spec.len()).map(value).collect())
    });
    Arc::new(model.expect("a small model"))
}

#[test]
fn where_no_copy_is_ever_right_auto_adds_two_percent_of_work() {
    let model = never_right();
    let layers = copy(&model, 24, Format::Int4);
    for texts in [1, 4] {
        let run = |auto: bool| {
            let mut scheduler = Scheduler::new(&model, SchedulerOptions::new(4096)).expect("memory");
            for text in 0..texts {
                let speculation = match auto {
                    true => Speculation::auto(Adaptive::by_bytes()).with_layers(layers.clone()),
                    false => Speculation::off(),
                };
                let options = GenerateOptions { max_new_tokens: 257, ..GenerateOptions::default() };
                let request = Request {
                    prompt: vec![5, 9, 2 + text],
                    exit_layer: 24,
                    confidence: None,
                    speculation,
                    options,
                };
                scheduler.add(request).expect("a good request");
            }
            let (mut found, mut statistics) = (Vec::new(), Vec::new());
            while !scheduler.is_idle() {
                for ended in scheduler.step().into_iter().filter_map(|one| Some((one.id, one.ended?))) {
                    let completion = ended.1.expect("a good request");
                    statistics.push((completion.statistics.drafted, completion.statistics.accepted));
                    found.push((ended.0, completion.tokens));
                }
            }
            found.sort();
            (found, statistics, scheduler.work())
        };
        let ((expected, _, plain), (found, statistics, auto)) = (run(false), run(true));
        assert!(found == expected, "{texts} texts");
        assert!(statistics.iter().all(|&(drafted, accepted)| drafted > 0 && accepted == 0), "{statistics:?}");
        let added = auto - plain;
        let share = added.share(&plain);
        assert!(share > 0.0 && share <= 0.02, "{texts} texts: {share}, {added:?} beyond {plain:?}");
    }
}
