//! Draws follow the distribution, options do what they say, and bad ones are errors.

use super::*;
use rand::Rng;

fn options(temperature: f32) -> SamplingOptions {
    SamplingOptions { temperature, seed: 5, ..SamplingOptions::default() }
}

/// Tokens drawn at many positions.
fn counts(options: SamplingOptions, logits: &[f32], draws: usize) -> Vec<f64> {
    let mut sampler = Sampler::new(options).expect("valid options");
    let mut counts = vec![0.0; logits.len()];
    for position in 0..draws {
        let tokens = vec![0; position % 500];
        sampler.options.seed = 0;
        sampler.generator = ChaCha8Rng::seed_from_u64(position as u64 / 500);
        counts[sampler.next(logits, &tokens).expect("finite logits") as usize] += 1.0;
    }
    counts
}

/// χ² of observed counts against probabilities.
fn chi_square(counts: &[f64], probabilities: &[f64]) -> f64 {
    let draws: f64 = counts.iter().sum();
    let pairs = counts.iter().zip(probabilities).filter(|(_, p)| **p > 0.0);
    pairs.map(|(count, p)| (count - draws * p).powi(2) / (draws * p)).sum()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let total: f64 = logits.iter().map(|x| x.exp()).sum();
    logits.iter().map(|x| x.exp() / total).collect()
}

#[test]
fn frequencies_follow_the_softmax() {
    let logits = [1.0, 0.0, -1.0, 2.0, 0.5];
    for temperature in [0.7, 1.0, 2.0] {
        let scaled: Vec<f64> = logits.iter().map(|&x| f64::from(x) / f64::from(temperature)).collect();
        let counts = counts(options(temperature), &logits, 20_000);
        // 4 degrees of freedom: above 18.5 once in a thousand; the seeds are fixed.
        let chi = chi_square(&counts, &softmax(&scaled));
        assert!(chi < 18.5, "χ² = {chi} at temperature {temperature}: {counts:?}");
    }
}

#[test]
fn top_k_and_top_p_keep_what_they_should() {
    // Probabilities 0.4, 0.3, 0.2, 0.1, out of order.
    let logits = [0.2f32.ln(), 0.4f32.ln(), 0.1f32.ln(), 0.3f32.ln()];
    let kept = |top_k, top_p| {
        let mut sampler = Sampler::new(SamplingOptions { top_k, top_p, ..options(1.0) }).expect("valid");
        sampler.logits = logits.to_vec();
        sampler.keep_most_likely();
        sampler.candidates.sort_unstable();
        sampler.candidates
    };
    assert_eq!(kept(0, 1.0), [0, 1, 2, 3]);
    assert_eq!(kept(2, 1.0), [1, 3]);
    assert_eq!(kept(9, 1.0), [0, 1, 2, 3]);
    assert_eq!(kept(0, 0.3), [1], "the token that crosses the line is kept");
    assert_eq!(kept(0, 0.5), [1, 3]);
    assert_eq!(kept(0, 0.75), [0, 1, 3]);
    assert_eq!(kept(2, 0.9), [1, 3], "top-p counts within what top-k left");

    let counts = counts(SamplingOptions { top_k: 2, ..options(1.0) }, &logits, 5_000);
    assert_eq!((counts[0], counts[2]), (0.0, 0.0));
    // 1 degree of freedom: above 10.8 once in a thousand.
    assert!(chi_square(&[counts[1], counts[3]], &[4.0 / 7.0, 3.0 / 7.0]) < 10.8, "{counts:?}");
}

#[test]
fn the_penalty_divides_what_is_likely_and_multiplies_what_is_not() {
    let mut sampler =
        Sampler::new(SamplingOptions { repetition_penalty: 2.0, ..options(0.0) }).expect("valid");
    let token = sampler.next(&[3.0, 2.0, -1.0, 1.9], &[0, 2, 0]).expect("finite");
    assert_eq!(sampler.logits, [1.5, 2.0, -2.0, 1.9], "each token once, however often it came");
    assert_eq!(token, 1);
}

#[test]
fn new_tokens_are_penalised_for_being_there_and_for_each_time() {
    let asked = SamplingOptions { presence_penalty: 1.0, frequency_penalty: 0.25, ..options(0.0) };
    let mut sampler = Sampler::new(asked).expect("valid").after(2);
    sampler.next(&[3.0, 2.0, f32::NEG_INFINITY, 1.0], &[3, 1, 0, 2, 0]).expect("finite");
    assert_eq!(sampler.logits, [1.5, 2.0, f32::NEG_INFINITY, 1.0], "the prompt's tokens do not count");
}

#[test]
fn min_p_is_a_share_of_the_most_likely() {
    let kept = |min_p, top_k| {
        let asked = SamplingOptions { min_p, top_k, ..options(1.0) };
        let mut sampler = Sampler::new(asked).expect("valid");
        sampler.logits = vec![0.5f32.ln(), 0.0, 0.1f32.ln(), 0.3f32.ln()];
        sampler.keep_most_likely();
        sampler.candidates.sort_unstable();
        sampler.candidates
    };
    assert_eq!(kept(0.0, 0), [0, 1, 2, 3]);
    assert_eq!(kept(0.2, 0), [0, 1, 3]);
    assert_eq!(kept(0.4, 0), [0, 1]);
    assert_eq!(kept(1.0, 0), [1]);
    assert_eq!(kept(0.05, 2), [0, 1]);
}

#[test]
fn noise_belongs_to_the_position() {
    let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut straight = Sampler::new(options(1.0)).expect("valid");
    let expected: Vec<u32> = (1..40).map(|n| straight.next(&logits, &vec![1; n]).expect("finite")).collect();
    let mut backwards = Sampler::new(options(1.0)).expect("valid");
    for n in (1..40).rev() {
        assert_eq!(backwards.next(&logits, &vec![1; n]).expect("finite"), expected[n - 1]);
    }
    let mut other = Sampler::new(SamplingOptions { seed: 6, ..options(1.0) }).expect("valid");
    let others: Vec<u32> = (1..40).map(|n| other.next(&logits, &vec![1; n]).expect("finite")).collect();
    assert_ne!(others, expected);
}

#[test]
fn bad_options_and_bad_logits_are_errors() {
    for (bad, option) in [
        (SamplingOptions { temperature: -1.0, ..options(0.0) }, "temperature"),
        (SamplingOptions { temperature: f32::NAN, ..options(0.0) }, "temperature"),
        (SamplingOptions { top_p: 0.0, ..options(0.0) }, "top_p"),
        (SamplingOptions { top_p: 1.5, ..options(0.0) }, "top_p"),
        (SamplingOptions { repetition_penalty: 0.0, ..options(0.0) }, "repetition_penalty"),
        (SamplingOptions { min_p: 1.5, ..options(0.0) }, "min_p"),
        (SamplingOptions { presence_penalty: f32::NAN, ..options(0.0) }, "presence_penalty"),
        (SamplingOptions { frequency_penalty: f32::INFINITY, ..options(0.0) }, "frequency_penalty"),
    ] {
        let message = Sampler::new(bad).expect_err(option).to_string();
        assert!(message.starts_with(option) && !message.contains('\n'), "{message}");
    }
    let mut sampler = Sampler::new(options(0.0)).expect("valid");
    for bad in [f32::NAN, f32::INFINITY] {
        let error = sampler.next(&[0.0, bad], &[1, 2, 3]).expect_err("not finite");
        assert!(matches!(error, Error::NotFinite { position: 2 }));
    }
}

#[test]
fn extreme_options_draw_the_most_likely() {
    let logits = [-30.0, 20.0, 25.0, 3.0];
    for temperature in [f32::from_bits(1), 1e-38, 1e-20] {
        for (top_k, top_p) in [(0, 1.0), (0, 0.5), (2, 1.0), (1, f32::MIN_POSITIVE)] {
            let extreme = SamplingOptions { top_k, top_p, ..options(temperature) };
            let mut sampler = Sampler::new(extreme).expect("valid");
            assert_eq!(
                sampler.next(&logits, &[1, 2]).expect("finite"),
                2,
                "at {temperature}, {top_k}, {top_p}"
            );
        }
    }
    for repetition_penalty in [f32::MIN_POSITIVE, f32::MAX] {
        for temperature in [0.0, 1e-38, 1.0] {
            let extreme = SamplingOptions { repetition_penalty, top_p: 0.9, ..options(temperature) };
            let mut sampler = Sampler::new(extreme).expect("valid");
            assert!(sampler.next(&logits, &[0, 1, 2, 3]).expect("finite") < 4);
        }
    }
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let mut sampler = Sampler::new(options(0.0)).expect("valid");
    assert_eq!(sampler.next(&[1.0, 4.0, 4.0], &[]).expect("finite"), 1);
}

/// All logits sorted, every chance in `f64`, and noise for every token.
fn draw_plainly(options: SamplingOptions, logits: &[f32], position: usize) -> (u32, f32) {
    let SamplingOptions { temperature, top_k, top_p, min_p, seed, .. } = options;
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let logits: Vec<f64> = logits.iter().map(|logit| f64::from((logit - max) / temperature)).collect();
    let mut kept: Vec<usize> = (0..logits.len()).collect();
    kept.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    kept.truncate(if top_k > 0 { top_k } else { logits.len() });
    let all: f64 = kept.iter().map(|&id| logits[id].exp()).sum();
    let mut sum = 0.0;
    kept.retain(|&id| {
        let before = sum;
        sum += logits[id].exp();
        (top_p == 1.0 || before < f64::from(top_p) * all) && logits[id] >= f64::from(min_p).ln()
    });
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(position as u64);
    let noise: Vec<f64> = (0..logits.len())
        .map(|_| (f64::from(generator.next_u32()) + 0.5) / 2f64.powi(32))
        .map(|uniform| -(-uniform.ln()).ln())
        .collect();
    let mut values: Vec<(f64, usize)> = kept.iter().map(|&id| (logits[id] + noise[id], id)).collect();
    values.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let second = values.get(1).map_or(f64::NEG_INFINITY, |second| second.0);
    (values[0].1 as u32, (values[0].0 - second) as f32)
}

#[test]
fn shortcuts_change_no_choice() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut uniform = || f64::from(random.next_u32()) / 2f64.powi(32);
    for round in 0..600 {
        let spread = [0.1, 3.0, 12.0][round % 3];
        let mut logits: Vec<f32> = (0..[5, 300, 3000][round / 3 % 3])
            .map(|_| (spread * (uniform() + uniform() - 1.0)) as f32)
            .collect();
        if round % 5 == 0 {
            logits.iter_mut().step_by(3).for_each(|logit| *logit = f32::NEG_INFINITY);
        }
        let options = SamplingOptions {
            temperature: [0.6, 1.0, 1e-3, 2.0][round % 4],
            top_k: [0, 0, 40][round / 9 % 3],
            top_p: [1.0, 0.9, 0.5][round / 27 % 3],
            min_p: [0.0, 0.0, 0.05][round / 81 % 3],
            seed: round as u64,
            ..SamplingOptions::GREEDY
        };
        let mut sampler = Sampler::new(options).expect("valid");
        let position = round % 50;
        let found = sampler.next_with_margin(&logits, &vec![0; position]).expect("finite");
        assert_eq!(found, draw_plainly(options, &logits, position), "{options:?}, {} tokens", logits.len());
    }
}
