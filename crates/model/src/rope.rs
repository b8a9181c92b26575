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
/// transformers takes the base of the longest text so far for all tokens of a call. A text that it generates past its
/// context token by token so has this position's base at each, and so has it here, however the tokens come in.
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
