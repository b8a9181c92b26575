use super::*;
use offramp_model::{Config, Damped, Format, Formats};
use std::path::Path;
use std::sync::Arc;

const LAYERS: usize = 5;
const VOCAB: usize = 47;
const CONTEXT: usize = 24;

fn config() -> Config {
    let json = format!(
        r#"{{"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": {LAYERS},
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": {VOCAB},
            "max_position_embeddings": {CONTEXT}, "rms_norm_eps": 1e-5}}"#
    );
    Config::from_json(&json, Path::new("config.json")).unwrap()
}

/// The output of its deeper layers is scaled by this: the smaller, the more its exits agree with the full
/// model.
fn model(scale: f32) -> Arc<Llama> {
    Arc::new(
        Llama::random_agreeing(config(), 3, &Formats::all(Format::F32), Damped { exit_layer: 2, scale })
            .unwrap(),
    )
}

fn text(len: usize) -> Vec<u32> {
    let mut state = 9u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % VOCAB as u32
    };
    (0..len).map(|_| next()).collect()
}

/// Many windows, and a rest that is no whole window.
const TEXT: usize = 40 * CONTEXT + 7;

fn asking(agreement: f64) -> CalibrationOptions {
    CalibrationOptions { exits: vec![2, 3], agreement, context: None, max_tokens: None }
}

fn calibrated(model: &Arc<Llama>, tokens: &[u32], options: &CalibrationOptions) -> Result<Calibration> {
    let stream = TokenStream::from_tokens(tokens.to_vec(), VOCAB).unwrap();
    calibrate(model, &stream, options, &mut |_, _| ())
}

/// Agreement and mean depth over some windows, by definition.
fn measured(model: &Arc<Llama>, windows: &[&[u32]], policy: &ConfidenceExit) -> (f64, f64) {
    let (mut equal, mut layers, mut tokens) = (0, 0, 0);
    for window in windows {
        let [mut early, mut full] = [(); 2].map(|()| Session::new(model, CONTEXT).unwrap());
        early.set_confidence_exit(Some(policy.clone())).unwrap();
        for &token in *window {
            let said = argmax(early.feed(&[token], &mut Workspace::new()).unwrap());
            equal += u64::from(said == argmax(full.feed(&[token], &mut Workspace::new()).unwrap()));
            layers += early.left_at();
            tokens += 1;
        }
    }
    (equal as f64 / f64::from(tokens), layers as f64 / f64::from(tokens))
}

#[test]
fn the_agreement_that_was_asked_for_is_kept_where_nothing_was_chosen() {
    let (tokens, mut depths) = (text(TEXT), Vec::new());
    let windows: Vec<&[u32]> = tokens.chunks_exact(CONTEXT).collect();
    let [first, second] =
        [0, 1].map(|half| windows.iter().skip(half).step_by(2).copied().collect::<Vec<_>>());
    for scale in [1.0, 0.3] {
        let model = model(scale);
        for asked in [0.8, 0.9, 0.95] {
            let found = calibrated(&model, &tokens, &asking(asked)).unwrap();
            assert_eq!((found.asked, &found.exits[..]), (asked, &[2, 3][..]));
            for (score, windows) in [(&found.chosen_by, &first), (&found.held_out, &second)] {
                assert_eq!(score.tokens, 20 * CONTEXT as u64);
                let (agreement, mean_depth) = measured(&model, windows, &found.policy());
                assert!((score.agreement - agreement).abs() < 1e-12, "{score:?}, not {agreement}");
                assert!((score.mean_depth - mean_depth).abs() < 1e-12, "{score:?}, not {mean_depth}");
                assert_eq!(score.left.iter().map(|left| left.exit_layer).collect::<Vec<_>>(), [2, 3, LAYERS]);
                let shares = score.left.iter().map(|left| (left.share, left.share * left.exit_layer as f64));
                let (all, layers) = shares.fold((0.0, 0.0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
                assert!((all - 1.0).abs() < 1e-12 && (layers - mean_depth).abs() < 1e-12);
            }
            assert!(found.chosen_by.agreement - 2.0 * found.chosen_by.standard_error >= asked);
            // Twenty windows are few: the measured agreement may be below the goal, but by no more than both
            // halves' errors.
            let error = found.chosen_by.standard_error + found.held_out.standard_error;
            assert!(found.held_out.agreement >= asked - 2.0 * error, "{found:?}");
            assert_eq!(found.is_met(), found.held_out.agreement >= asked);
            depths.push(found.held_out.mean_depth);
        }
    }
    let rises = |depths: &[f64]| depths.windows(2).all(|pair| pair[0] <= pair[1]);
    assert!(depths.chunks(3).all(rises), "more agreement takes more layers: {depths:?}");
    assert!(depths[0] < LAYERS as f64, "some leave: {depths:?}");
}

#[test]
fn where_exits_agree_more_leave_early() {
    let tokens = text(TEXT);
    let found = [1.0, 0.3, 0.0].map(|scale| calibrated(&model(scale), &tokens, &asking(0.95)).unwrap());
    let [plain, damped, silent] = found.map(|found| found.held_out);
    assert!(damped.left[0].share > plain.left[0].share, "{damped:?}, {plain:?}");
    assert!(damped.mean_depth < plain.mean_depth && damped.work < plain.work);
    // Layers that add nothing: the first exit is right, and is trusted at once.
    assert_eq!((silent.agreement, silent.mean_depth, silent.left[0].share), (1.0, 2.0, 1.0));
    assert!(silent.work < 0.6, "{silent:?}");
}

#[test]
fn certainty_is_the_full_model() {
    let tokens = text(TEXT);
    for scale in [1.0, 0.0] {
        let found = calibrated(&model(scale), &tokens, &asking(1.0)).unwrap();
        assert_eq!(found.threshold, f32::INFINITY);
        for score in [&found.chosen_by, &found.held_out] {
            assert_eq!((score.agreement, score.mean_depth), (1.0, LAYERS as f64));
            assert!(score.work > 1.0, "heads are read on the way: {score:?}");
        }
        assert!(found.is_met());
    }
    // Two windows prove little, so few tokens exit early even where all could.
    let found = calibrated(&model(0.0), &text(2 * CONTEXT + 1), &asking(0.99)).unwrap();
    assert_eq!((found.threshold, found.held_out.agreement), (f32::INFINITY, 1.0));
}

#[test]
fn the_same_text_gives_the_same_threshold_and_says_how_far_it_is() {
    let (model, stream) = (model(0.5), TokenStream::from_tokens(text(TEXT), VOCAB).unwrap());
    let run = |options: &CalibrationOptions| {
        let mut heard = Vec::new();
        let found =
            calibrate(&model, &stream, options, &mut |done, total| heard.push((done, total))).unwrap();
        let &(done, total) = heard.last().unwrap();
        assert_eq!(done, total);
        assert!(heard.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 == pair[1].1));
        (found.threshold, found.chosen_by, found.held_out)
    };
    let options = asking(0.9);
    assert_eq!(run(&options), run(&options));
    let some = CalibrationOptions { context: Some(8), max_tokens: Some(8 * 11 - 1), ..options };
    let (_, chosen_by, held_out) = run(&some);
    assert_eq!((chosen_by.tokens, held_out.tokens), (48, 40), "eleven windows of eight");
}

#[test]
fn what_cannot_be_calibrated_is_one_clear_line() {
    let model = model(1.0);
    let refused = |len: usize, options: &CalibrationOptions, expected: &str| {
        let error = calibrated(&model, &text(len), options).unwrap_err();
        let message = error.to_string();
        assert!(!message.contains('\n') && message.contains(expected), "{message:?}, not {expected:?}");
        error
    };
    for agreement in [0.0, -1.0, 1.01, f64::NAN] {
        assert!(matches!(refused(TEXT, &asking(agreement), "above 0"), Error::Agreement(_)));
    }
    for exits in [vec![], vec![0], vec![3, 2], vec![LAYERS]] {
        refused(TEXT, &CalibrationOptions { exits, ..asking(0.9) }, "below the session's depth of 5");
    }
    let short = |max_tokens| CalibrationOptions { max_tokens, ..asking(0.9) };
    for (len, max_tokens) in [(1, None), (2 * CONTEXT, None), (TEXT, Some(CONTEXT as u64)), (TEXT, Some(0))] {
        let error = refused(len, &short(max_tokens), "window of 24 tokens");
        assert!(matches!(error, Error::TooLittleText { context: CONTEXT, .. }));
    }
    refused(TEXT, &CalibrationOptions { context: Some(0), ..asking(0.9) }, "the model has 1 to 24");
    let stream = TokenStream::from_tokens(text(TEXT), VOCAB + 1).unwrap();
    let found = calibrate(&model, &stream, &asking(0.9), &mut |_, _| ());
    assert!(matches!(found, Err(Error::Vocabulary { .. })), "{found:?}");
}

#[test]
fn an_error_is_that_of_positions_or_of_windows() {
    // Evenly spread, it is that of a coin that falls so 40.5 times in 401.
    let share: f64 = 40.5 / 401.0;
    let even = (share * (1.0 - share) / 400.0).sqrt();
    assert!((standard_error(&[10, 10, 10, 10], 400) - even).abs() < 1e-12);
    // All in one window of four: shares 0.4, 0, 0, 0, whose mean has an error of 0.1.
    assert!((standard_error(&[40, 0, 0, 0], 400) - 0.1).abs() < 1e-12);
    assert!(standard_error(&[0, 0], 100) > 0.005, "no miss is no proof");
    assert!(standard_error(&[3], 100) > 0.0);
}
