//! How likely each exit says what the full model says.
//!
//! The chance of an exit is a sum in logits: how easy the text is at present, which all exits share, and how
//! much better or worse this exit is than others. Both are beliefs with a variance, moved by every choice
//! that is compared with the full model's (an extended Kalman filter in one number each). What is hard for
//! one exit is hard for all: where two exits were asked about the same token, the difference between them
//! says far more than either alone.

use super::margins::Margins;

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
}

#[derive(Clone, Debug)]
struct Exit {
    layer: usize,
    beside: Belief,
    margins: Margins,
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
    /// Nothing seen of these exits of a model of `depth` layers.
    pub(crate) fn new(exits: &[usize], depth: usize) -> Self {
        let exit = |&layer: &usize| {
            let guess = (layer as f64 / depth as f64).powf(FIRST_LAYERS);
            let beside = Belief { mean: (guess / (1.0 - guess)).ln(), variance: EXIT };
            Exit { layer, beside, margins: Margins::default() }
        };
        Self { ease: Belief { mean: 0.0, variance: EASE }, exits: exits.iter().map(exit).collect() }
    }

    /// The exits, shallow first.
    pub(crate) fn layers(&self) -> impl Iterator<Item = usize> {
        self.exits.iter().map(|exit| exit.layer)
    }

    /// The chance that a token of an exit is accepted: no less than a shallower one's.
    pub(crate) fn of(&self, layer: usize) -> f64 {
        let chance = |exit: &Exit| logistic(self.ease.mean + exit.beside.mean);
        self.exits.iter().filter(|exit| exit.layer <= layer).map(chance).fold(0.0, f64::max)
    }

    /// The same as it may well be.
    pub(crate) fn at_best(&self, layer: usize) -> f64 {
        let exit = self.exits.iter().find(|exit| exit.layer == layer);
        let hope = exit
            .map_or(0.0, |exit| logistic(self.ease.mean + exit.beside.mean + exit.beside.variance.sqrt()));
        hope.max(self.of(layer))
    }

    /// The chance of a token that an exit chose by `margin`.
    pub(crate) fn at(&self, layer: usize, margin: f32) -> f64 {
        let exit = self.exits.iter().find(|exit| exit.layer == layer);
        exit.map_or(0.5, |exit| exit.margins.chance(margin, self.of(layer)))
    }

    /// An exit's choice of `margin` was or was not the full model's; `beside` is another exit's at the same
    /// token, that was told of before.
    pub(crate) fn saw(&mut self, layer: usize, margin: f32, equal: bool, beside: Option<(usize, bool)>) {
        let residual = |layer: usize, equal: bool| f64::from(u8::from(equal)) - self.of(layer);
        let mut residual_here = residual(layer, equal);
        let chance = self.of(layer);
        let mut noise = 1.0 / (chance * (1.0 - chance)).max(LEAST_SURPRISE);
        if let Some((other, equal)) = beside {
            residual_here -= residual(other, equal);
            noise *= SHARED;
        }
        let Self { ease, exits } = self;
        let Some(exit) = exits.iter_mut().find(|exit| exit.layer == layer) else { return };
        exit.margins.saw(margin, equal);
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
        let chances = Chances::new(&[2, 4, 6, 12], 24);
        let all: Vec<f64> = [2, 4, 6, 12].map(|layer| chances.of(layer)).into();
        assert!(all.is_sorted() && all[0] > 0.3 && all[3] < 0.9, "{all:?}");
        assert!(chances.at_best(4) > chances.of(4));
    }

    #[test]
    fn it_converges_to_what_is_seen() {
        let mut chances = Chances::new(&[2, 4, 6, 12], 24);
        (0..2000).for_each(|i| chances.saw(4, 1.0, i % 5 != 0, None));
        assert!((chances.of(4) - 0.8).abs() < 0.06, "{}", chances.of(4));
        assert!(chances.of(6) >= chances.of(4), "a deeper exit is as good");
        (0..2000).for_each(|_| chances.saw(4, 1.0, false, None));
        assert!(chances.of(12) < 0.1, "a text that is hard is so for all: {}", chances.of(12));
    }

    /// Two exits that differ at one token of twenty, on a text whose ease swings.
    #[test]
    fn what_both_find_hard_does_not_hide_which_is_better() {
        let mut chances = Chances::new(&[4, 6], 24);
        for i in 0..600 {
            let hard = (i / 7) % 2 == 0 && i % 3 != 0;
            let better = !hard;
            let worse = better && i % 20 != 1;
            chances.saw(6, 1.0, better, None);
            chances.saw(4, 1.0, worse, Some((6, better)));
        }
        let (worse, better) = (chances.of(4), chances.of(6));
        assert!(better > worse + 0.005 && better < worse + 0.12, "{worse}, {better}");
    }
}
