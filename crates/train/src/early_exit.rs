//! The early-exit loss: which exits are active in a step, and what each loss counts.
//!
//! `L = CE_L + s · Σ w_i CE_i / Σ w_i` over the exits i = 0 … L − 2 that are active, `w_i = (i + 1) / L`
//! (the model card), or LayerSkip's `Σ C e CE / Σ C e` with the last layer among them (Elhoushi et al.
//! 2024, section 4.1). Exit i is `exit_layer` i + 1.

use crate::recipe::{Curriculum, EarlyExitKeys, ExitWeights, Recipe};

/// The early-exit loss of a recipe.
#[derive(Clone, Debug)]
pub struct EarlyExitLoss {
    keys: EarlyExitKeys,
    layers: usize,
}

impl EarlyExitLoss {
    /// The loss that a recipe asks for.
    pub fn new(recipe: &Recipe) -> Self {
        Self { keys: recipe.early_exit.clone(), layers: recipe.model.num_hidden_layers }
    }

    /// The exits of `step`, counted from 0, and what the mean cross-entropy of each counts: exit layers
    /// in increasing order, the full model always the last.
    pub fn exits(&self, step: u64) -> Vec<(usize, f64)> {
        let active: Vec<usize> = (0..self.layers - 1).filter(|&exit| self.is_active(exit, step)).collect();
        match self.keys.weights {
            ExitWeights::Linear => self.linear(&active),
            ExitWeights::Layerskip => self.layerskip(active),
        }
    }

    /// C(t, i).
    fn is_active(&self, exit: usize, step: u64) -> bool {
        match self.keys.curriculum {
            Curriculum::None => false,
            Curriculum::All => true,
            Curriculum::Rotational => {
                let period = self.keys.period.unwrap_or(1).max(1) as u64;
                exit as u64 % period == step % period
            }
        }
    }

    fn linear(&self, active: &[usize]) -> Vec<(usize, f64)> {
        let weight = |exit: usize| (exit + 1) as f64 / self.layers as f64;
        let sum: f64 = active.iter().map(|&exit| weight(exit)).sum();
        let scale = self.keys.loss_scale / if self.keys.normalize_weights { sum } else { 1.0 };
        let early = active.iter().map(|&exit| (exit, scale * weight(exit)));
        weighed(early.chain([(self.layers - 1, 1.0)]))
    }

    /// `e(l) = s · Σ_{i ≤ l} i`, and `e(L − 1) = L − 1 + s · Σ_{i ≤ L − 2} i`.
    fn layerskip(&self, mut active: Vec<usize>) -> Vec<(usize, f64)> {
        let last = self.layers - 1;
        let triangle = |up_to: usize| (up_to * (up_to + 1) / 2) as f64;
        let scale = |exit: usize| match exit {
            _ if last == 0 => 1.0,
            exit if exit == last => last as f64 + self.keys.loss_scale * triangle(last - 1),
            exit => self.keys.loss_scale * triangle(exit),
        };
        active.push(last);
        let sum: f64 = active.iter().map(|&exit| scale(exit)).sum();
        weighed(active.into_iter().map(|exit| (exit, scale(exit) / sum)))
    }
}

/// Exits that count nothing (LayerSkip's first) are not computed.
fn weighed(exits: impl Iterator<Item = (usize, f64)>) -> Vec<(usize, f64)> {
    exits.map(|(exit, weight)| (exit + 1, weight)).filter(|&(_, weight)| weight > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(layers: usize, keys: EarlyExitKeys) -> EarlyExitLoss {
        EarlyExitLoss { keys, layers }
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
    fn rotation_gives_every_exit_its_turn() {
        let keys =
            EarlyExitKeys { curriculum: Curriculum::Rotational, period: Some(3), ..Default::default() };
        let small = loss(6, keys.clone());
        // Exits 0 and 3 weigh 1/6 and 4/6.
        assert_exits(&small.exits(0), &[(1, 0.06), (4, 0.24), (6, 1.0)]);
        assert_exits(&small.exits(2), &[(3, 0.3), (6, 1.0)]);
        assert_eq!(small.exits(1), small.exits(4));
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
}
