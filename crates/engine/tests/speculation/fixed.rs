//! One exit and one length throughout: every one of them, in every format, at every end.

use crate::{CONFIG, LAYERS, fixed, model, options, samplings, told};
use offramp_engine::{
    GenerateOptions, SamplingOptions, Session, Speculation, StopReason, Workspace, generate,
};
use offramp_model::{CacheFormat, Config, Format, Formats, Llama};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

#[test]
fn it_is_the_plain_text_at_every_exit_and_length() {
    let mut accepted = [0, 0];
    for (index, agreement) in [0.0, 0.97].into_iter().enumerate() {
        let model = model(agreement);
        for sampling in samplings() {
            let (plain, found) = told(&model, &options(sampling), &mut Speculation::off(), &[5, 9, 2]);
            assert_eq!(found.statistics.drafted, 0);
            for exit_layer in 1..=LAYERS {
                for length in [0, 1, 2, 3, 7, 60] {
                    let mut draft = fixed(exit_layer, length);
                    let (text, found) = told(&model, &options(sampling), &mut draft, &[5, 9, 2]);
                    assert_eq!(text, plain, "exit {exit_layer}, length {length}, {sampling:?}");
                    if exit_layer == 2 && length == 3 {
                        accepted[index] += found.statistics.accepted;
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
            let model = Arc::new(Llama::random(config.clone(), 5, &formats).expect("a small model"));
            let options = options(samplings()[2]);
            let (plain, _) = told(&model, &options, &mut Speculation::off(), &[1, 2, 3, 4]);
            for exit_layer in [1, 3] {
                let (text, _) = told(&model, &options, &mut fixed(exit_layer, 4), &[1, 2, 3, 4]);
                assert_eq!(text, plain, "{layers}");
            }
        }
    }
}

#[test]
fn a_full_context_and_an_early_end_are_the_plain_ones() {
    let model = model(0.97);
    let endless = GenerateOptions { stop_tokens: Vec::new(), ..options(SamplingOptions::default()) };
    for max_new_tokens in [0, 1, 2, 3, 4, 5, 200] {
        let options = GenerateOptions { max_new_tokens, ..endless.clone() };
        let text = |mut speculation: Speculation| {
            let mut session = Session::new(&model, 40).expect("within the context");
            let go_on = &mut |_| ControlFlow::Continue(());
            let found =
                generate(&mut session, &[3, 1], &options, &mut speculation, &mut Workspace::new(), go_on);
            let found = found.expect("a good prompt");
            (found.tokens, found.reason, session.tokens().to_vec())
        };
        assert_eq!(text(fixed(2, 5)), text(Speculation::off()), "{max_new_tokens}");
        if max_new_tokens == 200 {
            assert_eq!(text(fixed(2, 5)).1, StopReason::ContextFull);
        }
    }
    // A reader who leaves after three tokens.
    for mut speculation in [Speculation::off(), fixed(2, 5)] {
        let mut session = Session::new(&model, 40).expect("within the context");
        let mut heard = 0;
        let mut leave = |_| {
            heard += 1;
            if heard == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let found =
            generate(&mut session, &[3, 1], &endless, &mut speculation, &mut Workspace::new(), &mut leave);
        let found = found.expect("a good prompt");
        assert_eq!((found.tokens.len(), found.reason), (3, StopReason::Stopped));
        assert_eq!(session.tokens(), [&[3, 1], &found.tokens[..2]].concat());
    }
}

#[test]
fn every_stop_token_stops_it_where_it_stops_the_plain_text() {
    let model = model(0.97);
    let hot = SamplingOptions { temperature: 1.0, ..SamplingOptions::default() };
    for stop in 0..37 {
        let options = GenerateOptions { stop_tokens: vec![stop], ..options(hot) };
        let (plain, expected) = told(&model, &options, &mut Speculation::off(), &[8]);
        for length in [1, 4] {
            let (text, found) = told(&model, &options, &mut fixed(2, length), &[8]);
            assert_eq!(text, plain, "{stop}");
            assert_eq!(found.reason, expected.reason);
        }
    }
}

#[test]
fn an_exit_that_is_not_there_is_refused() {
    let model = model(0.0);
    let mut session = Session::new(&model, 40).expect("within the context");
    let options = options(SamplingOptions::default());
    let go_on = &mut |_| ControlFlow::Continue(());
    let found =
        generate(&mut session, &[1], &options, &mut fixed(LAYERS + 1, 2), &mut Workspace::new(), go_on);
    assert!(found.expect_err("five layers").to_string().contains('6'));
}
