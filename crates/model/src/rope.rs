//! Rotary position embedding: the angles by which queries and keys are rotated.
//!
//! Frequencies, scaling and angles are computed in `f32` where Hugging Face's `modeling_rope_utils.py`
//! does, so that long contexts, where a rounded frequency shows, agree with it.

use crate::config::{Config, RopeScaling, Yarn};
use std::f32::consts::PI;
use std::f64::consts::TAU;
use std::ops::Range;

/// The inverse frequencies of a model, one for each pair of a head's elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    inverse_frequencies: Vec<f32>, // [head_dim / 2]
    dynamic: Option<Dynamic>,
    attention_factor: f32, // what cosines and sines are multiplied by
}

/// Dynamic scaling: the base of a position past the context grows with it.
///
/// transformers takes the base of the longest text so far for all tokens of a call. A text that it generates
/// past its context token by token so has this position's base at each, and so has it here, however the
/// tokens come in.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Dynamic {
    theta: f64,
    factor: f32,
    context: usize,
    head_dim: usize,
}

impl Rope {
    /// `theta^(−2i / head_dim)` for pair `i`, scaled as the config says.
    pub fn new(config: &Config) -> Self {
        let (theta, head_dim) = (f64::from(config.rope.theta as f32), config.head_dim);
        let wavelengths = wavelengths(theta, head_dim);
        let (mut dynamic, mut attention_factor) = (None, 1.0);
        let inverse_frequencies = match config.rope.scaling {
            RopeScaling::Default => wavelengths.map(|wave| 1.0 / wave).collect(),
            RopeScaling::Dynamic { factor } => {
                let context = config.max_position_embeddings;
                dynamic = Some(Dynamic { theta, factor: factor as f32, context, head_dim });
                wavelengths.map(|wave| 1.0 / wave).collect()
            }
            RopeScaling::Linear { factor } => wavelengths.map(|wave| 1.0 / wave / factor as f32).collect(),
            RopeScaling::Llama3 { .. } => {
                wavelengths.map(|wave| llama3(1.0 / wave, &config.rope.scaling)).collect()
            }
            RopeScaling::Yarn(parameters) => {
                attention_factor = parameters.attention_factor() as f32;
                yarn(&parameters, theta, &wavelengths.collect::<Vec<_>>())
            }
        };
        Self { inverse_frequencies, dynamic, attention_factor }
    }

    /// Radians per position, `[head_dim / 2]`; with dynamic scaling, those within the context.
    pub fn inverse_frequencies(&self) -> &[f32] {
        &self.inverse_frequencies
    }

    /// Cosines and sines of one position, multiplied by what YaRN scales scores with.
    ///
    /// # Shapes
    /// `cos`, `sin`: `[head_dim / 2]`
    ///
    /// # Panics
    /// If they are not.
    pub fn angles(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        assert_eq!((cos.len(), sin.len()), (self.inverse_frequencies.len(), self.inverse_frequencies.len()));
        let place = |frequency: f32, (cos, sin): (&mut f32, &mut f32)| {
            // The product is rounded to f32, as there; its cosine and sine are then exact to f32.
            let angle = f64::from(position as f32 * frequency);
            *cos = angle.cos() as f32 * self.attention_factor;
            *sin = angle.sin() as f32 * self.attention_factor;
        };
        let pairs = cos.iter_mut().zip(sin);
        match self.dynamic.filter(|dynamic| position >= dynamic.context) {
            None => self.inverse_frequencies.iter().zip(pairs).for_each(|(&one, pair)| place(one, pair)),
            Some(dynamic) => {
                let waves = wavelengths(dynamic.base(position + 1), dynamic.head_dim);
                waves.zip(pairs).for_each(|(wave, pair)| place(1.0 / wave, pair));
            }
        }
    }

    /// Cosines and sines of consecutive positions, `[positions, head_dim / 2]` each.
    pub fn table(&self, positions: Range<usize>) -> (Vec<f32>, Vec<f32>) {
        let half = self.inverse_frequencies.len();
        let (mut cos, mut sin) = (vec![0.0; positions.len() * half], vec![0.0; positions.len() * half]);
        let rows = cos.chunks_exact_mut(half).zip(sin.chunks_exact_mut(half));
        for (position, (cos, sin)) in positions.zip(rows) {
            self.angles(position, cos, sin);
        }
        (cos, sin)
    }
}

impl Dynamic {
    /// The base for a text of `length` tokens, more than the context.
    fn base(&self, length: usize) -> f64 {
        let stretched = self.factor * length as f32 / self.context as f32 - (self.factor - 1.0);
        let exponent = (self.head_dim as f64 / (self.head_dim - 2) as f64) as f32;
        let growth = f64::from(stretched).powf(f64::from(exponent)) as f32;
        f64::from(self.theta as f32 * growth)
    }
}

/// Positions per radian of each pair of a head.
fn wavelengths(theta: f64, head_dim: usize) -> impl Iterator<Item = f32> {
    (0..head_dim / 2).map(move |pair| {
        let exponent = (2 * pair) as f32 / head_dim as f32;
        theta.powf(f64::from(exponent)) as f32
    })
}

/// One inverse frequency under Llama 3.1's scaling: long waves are stretched, short ones kept, those between
/// interpolated.
fn llama3(plain: f32, scaling: &RopeScaling) -> f32 {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } =
        *scaling
    else {
        return plain;
    };
    let (factor, low, high) = (factor as f32, low_freq_factor as f32, high_freq_factor as f32);
    let context = original_max_position_embeddings as f32;
    let wavelength = 2.0 * PI / plain;
    if wavelength > context / low {
        plain / factor
    } else if wavelength < context / high {
        plain
    } else {
        let smooth = (context / wavelength - low) / (high - low);
        (1.0 - smooth) * plain / factor + smooth * plain
    }
}

/// The inverse frequencies under YaRN, by how often each wave turns in the original context.
fn yarn(yarn: &Yarn, theta: f64, wavelengths: &[f32]) -> Vec<f32> {
    let head_dim = 2 * wavelengths.len();
    let context = yarn.original_max_position_embeddings as f64;
    // The pair that turns so often in the original context.
    let pair = |turns: f64| head_dim as f64 * (context / (turns * TAU)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (pair(yarn.beta_fast), pair(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min((head_dim - 1) as f64));
    if low == high {
        high += 0.001; // as there: nothing is divided by 0
    }
    let blend = |(pair, &wave): (usize, &f32)| {
        let ramp = ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let kept = 1.0 - ramp;
        let (divided, plain) = (1.0 / (yarn.factor as f32 * wave), 1.0 / wave);
        divided * (1.0 - kept) + plain * kept
    };
    wavelengths.iter().enumerate().map(blend).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn rope(keys: &str) -> Rope {
        let text = format!(
            r#"{{"model_type": "llama", "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 1, "vocab_size": 9, "head_dim": 16, {keys}}}"#
        );
        Rope::new(&Config::from_json(&text, Path::new("config.json")).expect("a valid config"))
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 3e-7, "{found} instead of {expected}");
        }
    }

    #[test]
    fn frequencies_are_powers_of_theta() {
        let rope = rope(r#""rope_theta": 10000.0"#);
        let expected: Vec<f32> = (0..8).map(|i| 10f64.powf(-f64::from(i) / 2.0) as f32).collect();
        assert_close(rope.inverse_frequencies(), &expected);
    }

    #[test]
    fn linear_scaling_divides() {
        let plain = rope(r#""rope_theta": 500.0"#);
        let linear = rope(r#""rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}"#);
        let expected: Vec<f32> = plain.inverse_frequencies().iter().map(|f| f / 4.0).collect();
        assert_eq!(linear.inverse_frequencies(), expected);
    }

    /// What transformers 5.24 computes for this config.
    #[test]
    fn llama3_scaling_is_transformers() {
        let found = rope(
            r#""rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
               "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}"#,
        );
        assert_close(found.inverse_frequencies(), &LLAMA3);
    }

    #[rustfmt::skip]
    const LLAMA3: [f32; 8] = [
        1.0, 0.095_839_98, 0.0125, 0.003_952_847_3, 0.00125, 0.000_395_284_73, 0.000_125, 3.952_847_3e-5,
    ];

    /// What transformers 5.24 computes for these: in the middle of the pairs, with fractions of pairs, with
    /// no pair between.
    #[test]
    fn yarn_scaling_is_transformers() {
        let found = |keys: &str| {
            let keys = format!(r#""type": "yarn", "original_max_position_embeddings": 4096, {keys}"#);
            rope(&format!(r#""rope_theta": 10000.0, "rope_scaling": {{{keys}}}"#))
        };
        let plain = found(r#""factor": 4.0"#);
        assert_close(plain.inverse_frequencies(), &YARN[0]);
        let between =
            r#""beta_fast": 16, "beta_slow": 2, "truncate": false, "mscale": 0.7, "mscale_all_dim": 0.3"#;
        let between = found(&format!(r#""factor": 8.0, {between}"#));
        assert_close(between.inverse_frequencies(), &YARN[1]);
        let at_once = found(r#""factor": 4.0, "beta_fast": 3, "beta_slow": 3, "truncate": false"#);
        assert_close(at_once.inverse_frequencies(), &YARN[2]);
        for (rope, factor) in [(plain, 1.138_629_5), (between, 1.078_293_4)] {
            let (cos, sin) = rope.table(7..8);
            let (angle, scaled) =
                (f64::from(7.0 * rope.inverse_frequencies()[3]), |x: f64| x as f32 * factor);
            assert_close(&[cos[3], sin[3]], &[scaled(angle.cos()), scaled(angle.sin())]);
        }
    }

    /// What transformers 5.24 computes for texts of 33 and of 100 tokens; and within the context nothing is
    /// scaled.
    #[test]
    fn dynamic_scaling_is_transformers_for_a_text_that_grows() {
        let keys = r#""rope_theta": 10000.0, "max_position_embeddings": 32"#;
        let dynamic = rope(&format!(r#"{keys}, "rope_scaling": {{"type": "dynamic", "factor": 4.0}}"#));
        let plain = rope(keys);
        assert_eq!(dynamic.table(0..32), plain.table(0..32));
        for (position, frequencies) in [(32, DYNAMIC[0]), (99, DYNAMIC[1])] {
            let (_, sin) = dynamic.table(position..position + 1);
            let angle = |frequency: &f32| (position as f32 * frequency).sin();
            let expected: Vec<f32> = frequencies.iter().map(angle).collect();
            let close = sin.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 2e-5);
            assert!(close, "{sin:?} instead of {expected:?}");
        }
    }

    #[rustfmt::skip]
    const YARN: [[f32; 8]; 3] = [
        [1.0, 0.316_227_76, 0.1, 0.025_693_506, 0.006_249_999_6, 0.001_383_496_6, 0.000_25, 7.905_695e-5],
        [1.0, 0.316_227_76, 0.1, 0.031_622_78, 0.006_221_889, 0.000_435_575_58, 0.000_125, 3.952_847_3e-5],
        [1.0, 0.316_227_76, 0.1, 0.031_622_78, 0.01, 0.000_790_569_47, 0.000_25, 7.905_695e-5],
    ];

    #[rustfmt::skip]
    const DYNAMIC: [[f32; 8]; 2] = [
        [1.0, 0.310_951_4, 0.096_690_77, 0.030_066_127, 0.009_349_104, 0.002_907_117, 0.000_903_972_1, 0.000_281_091_34],
        [1.0, 0.229_258_37, 0.052_559_398, 0.012_049_682, 0.002_762_490_7, 0.000_633_324_1, 0.000_145_194_85, 3.328_713e-5],
    ];

    #[test]
    fn a_table_holds_every_position() {
        let rope = rope(r#""rope_theta": 10000.0"#);
        let (cos, sin) = rope.table(3..6);
        assert_eq!((cos.len(), sin.len()), (24, 24));
        let (mut one_cos, mut one_sin) = ([0.0; 8], [0.0; 8]);
        rope.angles(4, &mut one_cos, &mut one_sin);
        assert_eq!((&cos[8..16], &sin[8..16]), (&one_cos[..], &one_sin[..]));
        assert_eq!((cos[8], sin[8]), (4f64.cos() as f32, 4f64.sin() as f32));
    }
}
