//! The early-exit loss: which exits are active in a step, and the weight of each one's loss.
//!
//! `L = CE_L + s · Σ w_i CE_i / Σ w_i` over the exits i = 0 … L − 2 that are active, `w_i = (i + 1) / L`
//! (the model card), or LayerSkip's `Σ C e CE / Σ C e` with the last layer among them (Elhoushi et al.
//! 2024, section 4.1). Exit i is `exit_layer` i + 1.

use crate::recipe::{Curriculum, EarlyExitKeys, ExitWeights, Recipe};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// The early-exit loss of a recipe.
#[derive(Clone, Debug)]
pub struct EarlyExitLoss {
    keys: EarlyExitKeys,
    layers: usize,
    steps: u64,
    seed: u64,
    only: Option<Vec<usize>>, // exit layers beside the last, where others cannot learn
}

impl EarlyExitLoss {
    /// The loss that a recipe asks for.
    pub fn new(recipe: &Recipe) -> Self {
        let (layers, training) = (recipe.model.num_hidden_layers, &recipe.training);
        let only = recipe.adapters().map(|adapters| adapters.exits);
        Self { keys: recipe.early_exit.clone(), layers, steps: training.steps, seed: training.seed, only }
    }

    /// The exits of `step`, counted from 0, and the weight of each one's mean cross-entropy. Exit layers
    /// increase, and the full model is always the last.
    pub fn exits(&self, step: u64) -> Vec<(usize, f64)> {
        let mut exits = self.active(step);
        exits.push(self.layers - 1);
        // With `unbiased` the sum runs over all exits, active or not.
        let summed = if self.keys.unbiased { (0..self.layers).collect() } else { exits.clone() };
        let weight = |exit: usize| match self.keys.weights {
            ExitWeights::Linear => self.scaled(exit, &summed, |exit| (exit + 1) as f64 / self.layers as f64),
            ExitWeights::Equal => self.scaled(exit, &summed, |_| 1.0),
            ExitWeights::Layerskip => self.layerskip(exit, &summed),
        };
        let weighted = exits.into_iter().map(|exit| (exit + 1, weight(exit) / self.probability(exit)));
        // An exit of weight zero (LayerSkip's first) is not computed.
        weighted.filter(|&(_, weight)| weight > 0.0).collect()
    }

    /// Replaces `scored` by the positions, of `positions` in a micro-batch, at which `exit_layer` is scored,
    /// increasing. Micro-batches are counted from 0 since the run's start.
    ///
    /// These are all positions, unless the curriculum is `sampled`. Then it is a fixed number of them, drawn
    /// from ChaCha8 keyed by (seed, micro-batch, exit): their mean is an unbiased estimate of the mean over
    /// all.
    pub fn positions(&self, index: u64, exit_layer: usize, positions: usize, scored: &mut Vec<usize>) {
        scored.clear();
        let share = self.keys.sample_fraction.filter(|_| exit_layer < self.layers).unwrap_or(1.0);
        let mut wanted = ((share * positions as f64).round() as usize).clamp(1.min(positions), positions);
        let mut generator = self.generator(index, exit_layer);
        // Selection sampling (Knuth, algorithm S): each is taken with probability wanted / left.
        for position in 0..positions {
            let left = positions - position;
            if wanted == left || generator.random_range(0..left) < wanted {
                scored.push(position);
                wanted -= 1;
            }
            if wanted == 0 {
                break;
            }
        }
    }

    fn generator(&self, index: u64, exit_layer: usize) -> ChaCha8Rng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&index.to_le_bytes());
        key[16..20].copy_from_slice(&(exit_layer as u32).to_le_bytes());
        key[24..].copy_from_slice(b"sampled\0");
        ChaCha8Rng::from_seed(key)
    }

    /// The exits before the last layer with C(t, i) = 1.
    fn active(&self, step: u64) -> Vec<usize> {
        let last = self.layers - 1;
        let is_active = |&exit: &usize| match self.keys.curriculum {
            Curriculum::None => false,
            Curriculum::All | Curriculum::Sampled => true,
            Curriculum::Rotational => exit as u64 % self.period() == step % self.period(),
            // One more every T / (2L) steps, so all of them from half-way on.
            Curriculum::Gradual => {
                let (waited, opened) = ((last - exit) as u128, 2 * self.layers as u128 * u128::from(step));
                waited * u128::from(self.steps) <= opened
            }
        };
        let may = |exit: &usize| self.only.as_ref().is_none_or(|only| only.contains(&(exit + 1)));
        (0..last).filter(is_active).filter(may).collect()
    }

    fn period(&self) -> u64 {
        self.keys.period.unwrap_or(1).max(1) as u64
    }

    /// The probability that an exit is active, by which its term is divided. Sampled positions need no
    /// division: their mean is unbiased as it is.
    fn probability(&self, exit: usize) -> f64 {
        let by_turns = self.keys.unbiased && self.keys.curriculum == Curriculum::Rotational;
        if by_turns && exit < self.layers - 1 { 1.0 / self.period() as f64 } else { 1.0 }
    }

    /// The last layer has weight 1; the others share `loss_scale` by their weights.
    fn scaled(&self, exit: usize, summed: &[usize], weight: impl Fn(usize) -> f64) -> f64 {
        let last = self.layers - 1;
        if exit == last {
            return 1.0;
        }
        let sum: f64 = summed.iter().filter(|&&exit| exit < last).map(|&exit| weight(exit)).sum();
        weight(exit) * self.keys.loss_scale / if self.keys.normalize_weights { sum } else { 1.0 }
    }

    /// `e(l) = s · Σ_{i ≤ l} i`, and `e(L − 1) = L − 1 + s · Σ_{i ≤ L − 2} i`, over their sum.
    fn layerskip(&self, exit: usize, summed: &[usize]) -> f64 {
        let last = self.layers - 1;
        let triangle = |up_to: usize| (up_to * (up_to + 1) / 2) as f64;
        let scale = |exit: usize| match exit {
            _ if last == 0 => 1.0,
            exit if exit == last => last as f64 + self.keys.loss_scale * triangle(last - 1),
            exit => self.keys.loss_scale * triangle(exit),
        };
        scale(exit) / summed.iter().map(|&exit| scale(exit)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(layers: usize, keys: EarlyExitKeys) -> EarlyExitLoss {
        EarlyExitLoss { keys, layers, steps: 48, seed: 7, only: None }
    }

    #[track_caller]
    fn assert_exits(found: &[(usize, f64)], expected: &[(usize, f64)]) {
        let near = |(f, e): (&(usize, f64), &(usize, f64))| f.0 == e.0 && (f.1 - e.1).abs() < 1e-12;
        let same = found.len() == expected.len() && found.iter().zip(expected).all(near);
        assert!(same, "{found:?} instead of {expected:?}");
    }

    #[test]
    fn the_cards_weights_by_hand() {
        // w = 1/4, 2/4, 3/4; their sum is 6/4.
        let all = loss(4, EarlyExitKeys::default());
        assert_exits(&all.exits(7), &[(1, 0.05), (2, 0.1), (3, 0.15), (4, 1.0)]);
        let raw = loss(4, EarlyExitKeys { normalize_weights: false, ..Default::default() });
        assert_exits(&raw.exits(7), &[(1, 0.075), (2, 0.15), (3, 0.225), (4, 1.0)]);
        // L = 24: Σ_{i ≤ 22} (i + 1) = 276, and the raw sum is 276/24 = 11.5.
        let card = loss(24, EarlyExitKeys::default()).exits(0);
        let expected: Vec<_> = (1..24).map(|e| (e, 0.3 * e as f64 / 276.0)).chain([(24, 1.0)]).collect();
        assert_exits(&card, &expected);
        let raw = loss(24, EarlyExitKeys { normalize_weights: false, ..Default::default() }).exits(0);
        assert!((raw.iter().map(|exit| exit.1).sum::<f64>() - (1.0 + 0.3 * 11.5)).abs() < 1e-12);
    }

    #[test]
    fn no_active_exit_gives_the_last_layers_loss() {
        let none = EarlyExitKeys { curriculum: Curriculum::None, ..Default::default() };
        assert_exits(&loss(4, none.clone()).exits(0), &[(4, 1.0)]);
        assert_exits(
            &loss(4, EarlyExitKeys { weights: ExitWeights::Layerskip, ..none }).exits(0),
            &[(4, 1.0)],
        );
        assert_exits(&loss(1, EarlyExitKeys::default()).exits(0), &[(1, 1.0)]);
        assert_exits(&loss(4, EarlyExitKeys { loss_scale: 0.0, ..Default::default() }).exits(0), &[(4, 1.0)]);
    }

    #[test]
    fn rotation_reaches_every_exit() {
        let keys =
            EarlyExitKeys { curriculum: Curriculum::Rotational, period: Some(3), ..Default::default() };
        let small = loss(6, keys.clone());
        // Exits 0 and 3 weigh 1/6 and 4/6.
        assert_exits(&small.exits(0), &[(1, 0.06), (4, 0.24), (6, 1.0)]);
        assert_exits(&small.exits(2), &[(3, 0.3), (6, 1.0)]);
        assert_eq!(small.exits(1), small.exits(4));
        let equal = loss(6, EarlyExitKeys { weights: ExitWeights::Equal, ..keys.clone() });
        assert_exits(&equal.exits(0), &[(1, 0.15), (4, 0.15), (6, 1.0)]);
        let card = loss(24, EarlyExitKeys { period: Some(8), ..keys });
        let mut turns = [0; 25];
        (0..8).flat_map(|step| card.exits(step)).for_each(|exit| turns[exit.0] += 1);
        assert_eq!((&turns[1..24], turns[24]), (&[1; 23][..], 8));
    }

    #[test]
    fn layerskips_weights_by_hand() {
        // s = 0.5, L = 4: e = 0, 0.5, 1.5 and 3 + 0.5 · 3 = 4.5; their sum is 6.5.
        let keys = EarlyExitKeys { loss_scale: 0.5, weights: ExitWeights::Layerskip, ..Default::default() };
        assert_exits(&loss(4, keys).exits(0), &[(2, 0.5 / 6.5), (3, 1.5 / 6.5), (4, 4.5 / 6.5)]);
        // The share that LayerSkip's own numbers give the last of 24 layers.
        let card = EarlyExitKeys { loss_scale: 0.2, weights: ExitWeights::Layerskip, ..Default::default() };
        let last = loss(24, card).exits(0).last().copied().unwrap();
        assert!((last.1 - 0.154).abs() < 5e-4, "{last:?}");
    }

    #[test]
    fn gradual_opens_from_deep_to_shallow_until_half_way() {
        // 48 steps of 6 layers: one exit more every 4.
        let keys = EarlyExitKeys { curriculum: Curriculum::Gradual, ..Default::default() };
        let loss = loss(6, keys);
        let open = |step| loss.exits(step).iter().map(|exit| exit.0).collect::<Vec<_>>();
        assert_eq!((open(0), open(3)), (vec![6], vec![6]));
        assert_eq!((open(4), open(11)), (vec![5, 6], vec![4, 5, 6]));
        assert_eq!((open(20), open(47)), ((1..=6).collect(), (1..=6).collect()));
        assert_exits(&loss.exits(4), &[(5, 0.3), (6, 1.0)]);
    }

    /// The mean over a whole period is that of `all`, for each kind of weights.
    #[test]
    fn unbiased_rotation_has_the_mean_of_all() {
        let cards = EarlyExitKeys::default();
        let raw = EarlyExitKeys { normalize_weights: false, ..cards.clone() };
        let layerskip = EarlyExitKeys { weights: ExitWeights::Layerskip, ..cards.clone() };
        let equal = EarlyExitKeys { weights: ExitWeights::Equal, ..cards.clone() };
        for keys in [cards, raw, layerskip, equal] {
            let all = loss(6, keys.clone()).exits(0);
            let rotating = |unbiased| EarlyExitKeys {
                curriculum: Curriculum::Rotational,
                period: Some(4),
                unbiased,
                ..keys.clone()
            };
            let mean = |unbiased| {
                let mut mean = vec![0.0; 7];
                let loss = loss(6, rotating(unbiased));
                (0..4)
                    .flat_map(|step| loss.exits(step))
                    .for_each(|(exit, weight)| mean[exit] += weight / 4.0);
                mean
            };
            let expected =
                |exit: usize| all.iter().find(|found| found.0 == exit).map_or(0.0, |found| found.1);
            let difference =
                |mean: Vec<f64>| (1..=6).map(|exit| (mean[exit] - expected(exit)).abs()).fold(0.0, f64::max);
            assert!(difference(mean(true)) < 1e-12, "{keys:?}");
            assert!(difference(mean(false)) > 1e-3, "and without it does not: {keys:?}");
        }
    }

    #[test]
    fn sampled_positions_are_a_fixed_number_each_as_often_as_the_other() {
        let keys = EarlyExitKeys {
            curriculum: Curriculum::Sampled,
            sample_fraction: Some(0.2),
            ..Default::default()
        };
        let sampled = loss(4, keys);
        assert_eq!(sampled.exits(3), loss(4, EarlyExitKeys::default()).exits(3));
        let (mut scored, mut counts, mut pairs, draws) = (Vec::new(), [0u32; 25], 0u32, 8000);
        for index in 0..draws {
            sampled.positions(index, 2, 25, &mut scored);
            assert!(scored.len() == 5 && scored.is_sorted_by(|a, b| a < b), "{scored:?}");
            scored.iter().for_each(|&position| counts[position] += 1);
            pairs += u32::from(scored.contains(&3) && scored.contains(&17));
        }
        // Five standard deviations: a fifth of the draws each; two positions together 5/25 · 4/24 of them.
        let near = |count: u32, p: f64| {
            let n = draws as f64;
            (f64::from(count) - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt()
        };
        assert!(
            counts.iter().all(|&count| near(count, 0.2)) && near(pairs, 1.0 / 30.0),
            "{counts:?} {pairs}"
        );
        let mut again = Vec::new();
        sampled.positions(7, 2, 25, &mut scored);
        sampled.positions(7, 2, 25, &mut again);
        assert_eq!(scored, again);
        sampled.positions(7, 3, 25, &mut again);
        assert_ne!(scored, again, "each exit has positions of its own");
        sampled.positions(7, 4, 25, &mut scored);
        assert_eq!(scored.len(), 25, "the last layer is scored everywhere");
        sampled.positions(7, 1, 2, &mut scored);
        assert_eq!(scored.len(), 1, "never nowhere");
    }
}
