//! How likely each exit, and each copy of the first layers, says what the full model says.
//!
//! The chance of an exit is a sum in logits: how easy the text is at present, which all exits share, and how
//! much better or worse this exit is than others. Both are beliefs with a variance, moved by every choice
//! that is compared with the full model's (an extended Kalman filter in one number each). What is hard for
//! one exit is hard for all: where two exits were asked about the same token, the difference between them
//! says far more than either alone.
//!
//! A copy of the first layers is right if the exit is and if fewer bits do not matter. The chance of the
//! latter is one number for all depths, and believed in likewise; a copy of all layers has no other.

use super::drafter::Drafter;
use super::sureness::{Calibration, Sureness};

/// A number that one believes in, and how little.
#[derive(Clone, Copy, Debug)]
struct Belief {
    mean: f64,
    variance: f64,
}

/// Variances before anything was seen: of the text's ease, and of an exit beside others.
const EASE: f64 = 2.0;
const EXIT: f64 = 0.25;
/// What they gain with each token: texts change, exits hardly.
const EASE_DRIFTS: f64 = 0.001;
const EXIT_DRIFTS: f64 = 0.0005;
/// How often fewer bits do not matter, in logits: 0.9, by a guess.
const COPY: Belief = Belief { mean: 2.2, variance: 0.5 };
const COPY_DRIFTS: f64 = 0.0005;
/// The first layers bring an exit nearer to the whole than later ones do: as this power of the depth, by a
/// guess.
const FIRST_LAYERS: f64 = 0.3;
/// How much less the difference of two exits at one token is worth to chance than the two alone.
const SHARED: f64 = 0.25;
/// A choice that was certain to be right, or wrong, would say nothing.
const LEAST_SURPRISE: f64 = 0.04;

/// All exits' chances.
#[derive(Clone, Debug)]
pub(crate) struct Chances {
    ease: Belief,
    exits: Vec<Exit>,
    depth: usize,
    copies: Option<CopyOfLayers>,
}

/// What is known of copies of the layers.
#[derive(Clone, Debug)]
struct CopyOfLayers {
    exact: Belief,                   // that fewer bits do not matter
    sure: Vec<(usize, Calibration)>, // of copies of so many layers
}

#[derive(Clone, Debug)]
struct Exit {
    layer: usize,
    beside: Belief,
    sure: Calibration,
}

fn logistic(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

impl Belief {
    /// An observation of `residual` (in chances) of something of which this is a part of `variance` in all.
    fn learn(&mut self, residual: f64, all: f64, noise: f64) {
        let gain = self.variance / (all + noise);
        self.mean += gain * residual * noise;
        self.variance -= gain * self.variance;
    }
}

impl Chances {
    /// Nothing seen of these exits of a model of `depth` layers, the first `copied` of which there are copies
    /// of.
    pub(crate) fn new(exits: &[usize], depth: usize, copied: usize) -> Self {
        let exit = |&layer: &usize| {
            let guess = (layer as f64 / depth as f64).powf(FIRST_LAYERS);
            let beside = Belief { mean: (guess / (1.0 - guess)).ln(), variance: EXIT };
            Exit { layer, beside, sure: Calibration::default() }
        };
        let copies = exits.iter().copied().chain([depth]).filter(|&layers| layers <= copied);
        let sure: Vec<_> = copies.map(|layers| (layers, Calibration::default())).collect();
        let copies = (!sure.is_empty()).then_some(CopyOfLayers { exact: COPY, sure });
        let ease = Belief { mean: 0.0, variance: EASE };
        Self { ease, exits: exits.iter().map(exit).collect(), depth, copies }
    }

    /// All that may draft: exits, shallow first, then copies.
    pub(crate) fn drafters(&self) -> impl Iterator<Item = Drafter> {
        let copies = self.copies.iter().flat_map(|copies| &copies.sure);
        self.layers().map(Drafter::own).chain(copies.map(|(layers, _)| Drafter::copy(*layers)))
    }

    /// The exits, shallow first.
    pub(crate) fn layers(&self) -> impl Iterator<Item = usize> {
        self.exits.iter().map(|exit| exit.layer)
    }

    /// The chance that a drafted token is accepted.
    pub(crate) fn of(&self, drafter: Drafter) -> f64 {
        let own = self.of_exit(drafter.exit_layer);
        if drafter.apart { own * self.exact() } else { own }
    }

    /// That fewer bits do not matter.
    fn exact(&self) -> f64 {
        self.copies.as_ref().map_or(0.0, |copies| logistic(copies.exact.mean))
    }

    /// The chance of an exit: no less than a shallower one's.
    fn of_exit(&self, layer: usize) -> f64 {
        if layer >= self.depth {
            return 1.0;
        }
        let chance = |exit: &Exit| logistic(self.ease.mean + exit.beside.mean);
        self.exits.iter().filter(|exit| exit.layer <= layer).map(chance).fold(0.0, f64::max)
    }

    /// The same, where its exit is as good as it may well be, or, if exits have not been looked at of late,
    /// the text as easy.
    pub(crate) fn at_best(&self, drafter: Drafter, looked_at: bool) -> f64 {
        let exit = self.exits.iter().find(|exit| exit.layer == drafter.exit_layer);
        let hope = |exit: &Exit| {
            let ease = if looked_at { 0.0 } else { self.ease.variance };
            let variance = exit.beside.variance + ease;
            logistic(self.ease.mean + exit.beside.mean + variance.sqrt())
        };
        let hope = exit.map_or(0.0, hope);
        let own = hope.max(self.of_exit(drafter.exit_layer));
        if drafter.apart { own * self.exact() } else { own }
    }

    /// The chance of a token that was drafted so surely.
    pub(crate) fn at(&self, drafter: Drafter, sure: Sureness) -> f64 {
        let layer = drafter.exit_layer;
        let known = match (&self.copies, drafter.apart) {
            (Some(copies), true) => copies.sure.iter().find(|known| known.0 == layer).map(|known| &known.1),
            _ => self.exits.iter().find(|exit| exit.layer == layer).map(|exit| &exit.sure),
        };
        known.map_or(0.5, |known| known.chance(sure, self.of(drafter)))
    }

    /// A choice so sure was or was not the full model's.
    pub(crate) fn saw(&mut self, drafter: Drafter, sure: Sureness, equal: bool) {
        if drafter.apart {
            self.saw_copy(drafter.exit_layer, sure, equal);
        } else {
            self.saw_exit(drafter.exit_layer, sure, equal, None);
        }
    }

    /// A copy's choice says something of the copies, of its exit and of the text, of each by how much it
    /// would move the chance.
    fn saw_copy(&mut self, layer: usize, sure: Sureness, equal: bool) {
        let (own, exact, whole) = (self.of_exit(layer), self.exact(), layer >= self.depth);
        let chance = own * exact;
        let residual = f64::from(u8::from(equal)) - chance;
        let Self { ease, exits, copies: Some(copies), .. } = self else { return };
        if let Some((_, known)) = copies.sure.iter_mut().find(|known| known.0 == layer) {
            known.saw(sure, chance, equal);
        }
        if whole {
            // It says nothing of exits, whose chances may have changed meanwhile.
            ease.variance = (ease.variance + EASE_DRIFTS).min(EASE);
        }
        let mut parts = vec![(&mut copies.exact, chance * (1.0 - exact), COPY_DRIFTS)];
        if let Some(exit) = exits.iter_mut().find(|exit| exit.layer == layer && !whole) {
            parts.push((ease, chance * (1.0 - own), EASE_DRIFTS));
            parts.push((&mut exit.beside, chance * (1.0 - own), EXIT_DRIFTS));
        }
        parts.iter_mut().for_each(|(belief, _, drift)| belief.variance += *drift);
        let moved = parts.iter().map(|(belief, slope, _)| slope * slope * belief.variance);
        let all = moved.sum::<f64>() + (chance * (1.0 - chance)).max(LEAST_SURPRISE);
        for (belief, slope, _) in parts {
            let gain = belief.variance * slope / all;
            belief.mean += gain * residual;
            belief.variance -= gain * slope * belief.variance;
        }
    }

    /// An exit's choice so sure was or was not the full model's; `beside` is what was told before of the
    /// same token.
    pub(crate) fn saw_exit(
        &mut self,
        layer: usize,
        sure: Sureness,
        equal: bool,
        beside: Option<(Drafter, bool)>,
    ) {
        let residual = |drafter: Drafter, equal: bool| f64::from(u8::from(equal)) - self.of(drafter);
        let mut residual_here = residual(Drafter::own(layer), equal);
        let chance = self.of_exit(layer);
        let mut noise = 1.0 / (chance * (1.0 - chance)).max(LEAST_SURPRISE);
        if let Some((other, equal)) = beside {
            residual_here -= residual(other, equal);
            noise *= SHARED;
        }
        let Self { ease, exits, .. } = self;
        let Some(exit) = exits.iter_mut().find(|exit| exit.layer == layer) else { return };
        exit.sure.saw(sure, chance, equal);
        exit.beside.variance += EXIT_DRIFTS;
        if beside.is_some() {
            return exit.beside.learn(residual_here, exit.beside.variance, noise);
        }
        ease.variance += EASE_DRIFTS;
        let all = ease.variance + exit.beside.variance;
        ease.learn(residual_here, all, noise);
        exit.beside.learn(residual_here, all, noise);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_the_first_layers_counting_most() {
        let chances = Chances::new(&[2, 4, 6, 12], 24, 0);
        let all: Vec<f64> = [2, 4, 6, 12].map(|layer| chances.of_exit(layer)).into();
        assert!(all.is_sorted() && all[0] > 0.3 && all[3] < 0.9, "{all:?}");
        assert!(chances.at_best(Drafter::own(4), true) > chances.of_exit(4));
    }

    #[test]
    fn it_converges_to_what_is_seen() {
        let mut chances = Chances::new(&[2, 4, 6, 12], 24, 0);
        (0..2000).for_each(|i| chances.saw_exit(4, Sureness::of(1.0), i % 5 != 0, None));
        assert!((chances.of_exit(4) - 0.8).abs() < 0.06, "{}", chances.of_exit(4));
        assert!(chances.of_exit(6) >= chances.of_exit(4), "a deeper exit is as good");
        (0..2000).for_each(|_| chances.saw_exit(4, Sureness::of(1.0), false, None));
        assert!(chances.of_exit(12) < 0.1, "a text that is hard is so for all: {}", chances.of_exit(12));
    }

    /// Two exits that differ at one token of twenty, on a text whose ease swings.
    #[test]
    fn what_both_find_hard_does_not_hide_which_is_better() {
        let mut chances = Chances::new(&[4, 6], 24, 0);
        for i in 0..600 {
            let hard = (i / 7) % 2 == 0 && i % 3 != 0;
            let better = !hard;
            let worse = better && i % 20 != 1;
            chances.saw_exit(6, Sureness::of(1.0), better, None);
            chances.saw_exit(4, Sureness::of(1.0), worse, Some((Drafter::own(6), better)));
        }
        let (worse, better) = (chances.of_exit(4), chances.of_exit(6));
        assert!(better > worse + 0.005 && better < worse + 0.12, "{worse}, {better}");
    }

    /// A model that nobody trained for exits: none is ever right, and a copy of all layers is.
    #[test]
    fn a_copy_of_all_layers_needs_no_exit() {
        let mut chances = Chances::new(&[2, 4, 12], 24, 24);
        let (copy_4, whole) = (Drafter::copy(4), Drafter::copy(24));
        assert!((0.85..0.95).contains(&chances.of(whole)) && chances.of(copy_4) < chances.of_exit(4));
        for i in 0..300 {
            chances.saw(Drafter::own(4), Sureness::of(1.0), false);
            chances.saw(whole, Sureness::of(1.0), i % 20 != 0);
        }
        assert!((chances.of(whole) - 0.95).abs() < 0.03 && chances.of(copy_4) < 0.05, "{chances:?}");
        assert_eq!(chances.drafters().last(), Some(whole));
    }

    /// What a copy gets wrong where its exit is known to be right is the copy's fault.
    #[test]
    fn a_copy_is_as_right_as_its_exit_but_for_its_bits() {
        let mut chances = Chances::new(&[4, 6], 24, 6);
        for i in 0..1200 {
            chances.saw(Drafter::own(6), Sureness::of(1.0), i % 10 != 0);
            chances.saw(Drafter::copy(6), Sureness::of(1.0), i % 5 != 0);
        }
        let (own, copy) = (chances.of(Drafter::own(6)), chances.of(Drafter::copy(6)));
        assert!((own - 0.9).abs() < 0.05 && (copy - 0.8).abs() < 0.06, "{own}, {copy}");
        assert!(chances.drafters().all(|drafter| drafter.exit_layer < 24), "there are no copies of more");
    }
}
