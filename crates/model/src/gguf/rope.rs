//! Llama 3.1's scaling: a file has the factors of the frequencies, a config the parameters.

use crate::config::RopeScaling;

/// Parameters that models with such factors have.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL_CONTEXTS: [usize; 4] = [8192, 4096, 16_384, 32_768];
/// Factors are of 32 bits.
const TOLERANCE: f64 = 1e-4;

/// What each frequency is divided by, one for each pair of a head.
pub(crate) fn factors(scaling: RopeScaling, theta: f64, head_dim: usize) -> Option<Vec<f32>> {
    let RopeScaling::Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings,
    } = scaling
    else {
        return None;
    };
    let original = original_max_position_embeddings as f64;
    let one = |pair: usize| {
        let wavelength = 2.0 * std::f64::consts::PI * theta.powf(2.0 * pair as f64 / head_dim as f64);
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Some((0..head_dim / 2).map(|pair| one(pair) as f32).collect())
}

/// The parameters that give these factors.
pub(crate) fn scaling(found: &[f32], theta: f64, head_dim: usize) -> Option<RopeScaling> {
    let factor = f64::from(found.iter().copied().fold(1.0, f32::max));
    let candidate = |&original: &usize| RopeScaling::Llama3 {
        factor,
        low_freq_factor: LOW,
        high_freq_factor: HIGH,
        original_max_position_embeddings: original,
    };
    let agrees = |scaling: &RopeScaling| {
        let made = factors(*scaling, theta, head_dim).unwrap_or_default();
        let near = |(a, b): (&f32, &f32)| (f64::from(a / b) - 1.0).abs() < TOLERANCE;
        made.len() == found.len() && made.iter().zip(found).all(near)
    };
    ORIGINAL_CONTEXTS.iter().map(candidate).find(agrees)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_back_from_their_factors() {
        for (factor, original, head_dim) in [(8.0, 8192, 128), (32.0, 8192, 64), (4.0, 4096, 64)] {
            let scaling = RopeScaling::Llama3 {
                factor,
                low_freq_factor: LOW,
                high_freq_factor: HIGH,
                original_max_position_embeddings: original,
            };
            let factors = factors(scaling, 500_000.0, head_dim).expect("this scaling");
            assert_eq!(super::scaling(&factors, 500_000.0, head_dim), Some(scaling));
        }
        assert_eq!(super::scaling(&[1.0, 3.0, 2.0, 7.0], 10_000.0, 8), None);
    }
}
