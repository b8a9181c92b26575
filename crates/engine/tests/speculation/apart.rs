//! Layers apart draft, in any format, from any depth; the text is the plain one.

use crate::{LAYERS, fixed, model, options, samplings, told};
use offramp_engine::{
    Adaptive, Error, Request, Scheduler, SchedulerOptions, Session, Speculation, Workspace,
};
use offramp_engine::{Progressed, generate};
use offramp_model::{DraftLayers, Format, Llama};
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
