//! The policy on machines and models that are made up: how near it comes to the best exit and length, from
//! the first token on.

mod further;

use super::*;
use crate::chooser::Choice;
use crate::round::Round;
use crate::speculate::costs::BANDWIDTH;
use crate::speculate::together::plan_together;
use crate::workspace::{Call, CallTime};
use offramp_model::{Config, DraftLayers, Format, Formats};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::path::Path;

/// Seconds of a copied layer, the head and a drafted token's head, where a layer takes one; and how much
/// longer a call takes for each further row.
#[derive(Clone, Copy, Debug)]
struct Machine {
    copy: f64,
    head: f64,
    draft_head: f64,
    row: f64,
}

impl Machine {
    fn rows(&self, rows: usize) -> f64 {
        1.0 + self.row * (rows - 1) as f64
    }

    fn plain(&self) -> f64 {
        24.0 + self.head
    }

    fn round(&self, drafter: Drafter, length: usize) -> f64 {
        let (layers, drafts) = (drafter.exit_layer as f64, length as f64);
        let draft = match drafter.apart {
            true => drafts * layers * self.copy,
            false => (drafts + 1.0) * layers,
        };
        let verify = (drafter.above(24) as f64 + self.head) * self.rows(length + 1);
        draft + drafts * self.draft_head + verify
    }
}

/// A large model: reading weights is all. A small one: every row counts.
const MACHINES: [Machine; 2] = [
    Machine { copy: 0.33, head: 2.9, draft_head: 1.5, row: 0.02 },
    Machine { copy: 0.6, head: 2.4, draft_head: 1.4, row: 0.15 },
];

/// How often exits 2, 3, 4, 6, 8 and 12 are right: a trained model, better and worse ones, one whose sixth
/// layer decides, one that no exit serves.
const MODELS: [[f64; 6]; 6] = [
    [0.39, 0.44, 0.48, 0.63, 0.71, 0.77],
    [0.55, 0.7, 0.8, 0.81, 0.82, 0.84],
    [0.7, 0.82, 0.9, 0.92, 0.94, 0.96],
    [0.2, 0.4, 0.6, 0.8, 0.83, 0.87],
    [0.02, 0.05, 0.15, 0.8, 0.81, 0.83],
    [0.02, 0.02, 0.03, 0.05, 0.1, 0.2],
];
const EXITS: [usize; 6] = [2, 3, 4, 6, 8, 12];
const TOKENS: usize = 128;
const SEEDS: u64 = 100;

/// A machine, a model, and whether fewer bits matter.
#[derive(Clone, Copy, Debug)]
struct World {
    machine: Machine,
    chances: [f64; 6],
    /// How often a copy is right where its exit is, if there are copies.
    exact: Option<f64>,
    /// Whether margins tell something of what is right, or nothing.
    telling: bool,
}

/// What is so at a position.
#[derive(Clone, Copy, Debug)]
struct Position {
    /// Which exits are right: those whose chance is above.
    ease: f64,
    /// Whether copies are: if their chance is above.
    bits: f64,
    sure: f64,
}

impl World {
    fn chance(&self, exit_layer: usize) -> f64 {
        EXITS.iter().zip(self.chances).find(|known| *known.0 == exit_layer).map_or(1.0, |known| known.1)
    }

    /// Whether a drafter is right at a position, and by what margin.
    fn choice(&self, drafter: Drafter, at: Position) -> (bool, f32) {
        let exact = if drafter.apart { self.exact.unwrap_or(0.0) } else { 1.0 };
        let chance = self.chance(drafter.exit_layer);
        let right = at.ease < chance && at.bits < exact;
        // The same token is hard for every exit; one that is right is mostly surer.
        let lead = if right { 1.0 + chance - at.ease } else { 0.6 };
        (right, (if self.telling { at.sure * lead } else { at.sure }) as f32)
    }

    /// The best speed-up of a fixed drafter and length.
    fn best(&self) -> f64 {
        let exits = EXITS.map(Drafter::own).into_iter().chain(EXITS.map(Drafter::copy));
        let drafters =
            exits.chain([Drafter::copy(24)]).filter(|drafter| self.exact.is_some() || !drafter.apart);
        let speed_up = |drafter: Drafter, length| {
            let exact = if drafter.apart { self.exact.unwrap_or(0.0) } else { 1.0 };
            let chance = self.chance(drafter.exit_layer) * exact;
            let tokens: f64 = (0..=length).map(|i| f64::powi(chance, i as i32)).sum();
            tokens * self.machine.plain() / self.machine.round(drafter, length)
        };
        let points = drafters.flat_map(|drafter| (1..16).map(move |length| (drafter, length)));
        points.map(|(drafter, length)| speed_up(drafter, length)).fold(1.0, f64::max)
    }

    /// The policy's speed-ups over a text without knowledge, and over another that follows.
    fn reached(&self, models: &Models, seed: u64) -> [f64; 2] {
        let (mut random, mut adaptive) = (ChaCha8Rng::seed_from_u64(seed), Adaptive::default());
        [(); 2].map(|()| self.text(models, &mut adaptive, &mut random))
    }

    fn text(&self, models: &Models, adaptive: &mut Adaptive, random: &mut ChaCha8Rng) -> f64 {
        let World { machine, .. } = *self;
        let mut world: Vec<Position> = Vec::new();
        let (mut position, mut seconds) = (0, 0.0);
        // What is guessed of a layer is too little by some.
        let unit = 1.3 * models.model.layer_work().bytes as f64 / BANDWIDTH;
        let copies = Copies { layers: self.exact.map(|_| &models.copy), head: None };
        adaptive.know(&models.model, copies, 24);
        let prompt = CallTime { call: Call::Layers(24), rows: 8, seconds: 24.0 * machine.rows(8) * unit };
        let head = CallTime { call: Call::Head, rows: 1, seconds: machine.head * unit };
        adaptive.known().costs.learn(&[prompt, head]);
        while position < TOKENS {
            while world.len() < position + 20 {
                let (ease, sure) = (random.random(), random.random());
                world.push(Position { ease, bits: random.random(), sure });
            }
            let mut noise =
                || 1.0 + 0.1 * random.random::<f64>() + f64::from(u8::from(random.random::<f64>() < 0.05));
            let plan = plan_together(&mut [(TOKENS, &mut *adaptive)], 0)[0];
            let mut times = Vec::new();
            let mut took = |what: f64, call: Call, rows: usize| {
                let time = what * noise();
                seconds += time;
                times.push(CallTime { call, rows, seconds: time * unit });
            };
            let (drafter, mut chance) = (plan.drafter, 1.0);
            let exit = drafter.exit_layer;
            let (pass, call) = match drafter.apart {
                true => (exit as f64 * machine.copy, Call::DraftLayers(exit)),
                false => (exit as f64, Call::Layers(exit)),
            };
            let (mut draft, mut dropped, mut probed) = (Vec::new(), None, Vec::new());
            let (mut rows, mut accepted, mut alive) = (1, 0, true);
            if !drafter.apart {
                took(pass, call, 1);
            }
            while rows <= plan.num_speculations && adaptive.goes_on(drafter, rows, chance, 1) {
                if drafter.apart {
                    took(pass, call, 1);
                }
                let (right, margin) = self.choice(drafter, world[position + rows - 1]);
                took(machine.draft_head, Call::DraftHead, 1);
                let choice = Choice { token: u32::from(!right), sure: Sureness::of(margin) };
                chance *= adaptive.chance(drafter, Sureness::of(margin));
                if !adaptive.keeps(drafter, rows, chance, 1) {
                    dropped = Some(choice);
                    break;
                }
                draft.push(choice);
                alive &= right;
                accepted += usize::from(alive);
                if !drafter.apart {
                    took(pass, call, 1);
                }
                rows += 1;
            }
            if let Some(probe) = plan.probe {
                took(machine.draft_head * machine.rows(rows), Call::DraftHead, rows);
                probed.extend((0..rows).map(|row| {
                    let (right, margin) = self.choice(Drafter::own(probe), world[position + row]);
                    Choice { token: u32::from(!right), sure: Sureness::of(margin) }
                }));
            }
            let above = drafter.above(24);
            if above > 0 {
                took(above as f64 * machine.rows(rows), Call::Layers(above), rows);
            }
            took(machine.head * machine.rows(rows), Call::Head, rows);
            // The full model's tokens are zeros.
            let tokens = vec![0; accepted + 1];
            let round = &Round { tokens, drafted: draft.len(), accepted, ..Round::default() };
            let (draft, probed) = (&draft[..], &probed[..]);
            adaptive.learn(&Lesson {
                plan,
                draft,
                dropped,
                probed,
                round,
                came: round.tokens.len(),
                rows,
                times: &times,
            });
            position += accepted + 1;
        }
        position as f64 * machine.plain() * 1.1 / seconds
    }
}

/// A model whose bytes are those of the machines, about.
struct Models {
    model: Llama,
    copy: DraftLayers,
}

fn models() -> Models {
    let config = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "vocab_size": 830,
        "num_hidden_layers": 24, "num_attention_heads": 4, "num_key_value_heads": 1, "max_position_embeddings": 64}"#;
    let config = Config::from_json(config, Path::new("config.json")).expect("a valid config");
    let formats = Formats::default();
    let model = Llama::random(config, 1, &formats).expect("a small model");
    let copy = model.draft_layers(24, Format::Int4).expect("a small copy");
    Models { model, copy }
}

#[test]
fn it_comes_near_the_best_layers_and_length() {
    let models = models();
    for exact in [None, Some(0.96), Some(0.88)] {
        for (telling, expected) in [(true, [0.93, 0.975]), (false, [0.905, 0.94])] {
            let worlds = MACHINES.iter().flat_map(|&machine| {
                MODELS.iter().map(move |&chances| World { machine, chances, exact, telling })
            });
            let share = |world: World| {
                let reached: Vec<_> = (0..SEEDS).map(|seed| world.reached(&models, seed)).collect();
                [0, 1].map(|i| reached.iter().map(|text| text[i]).sum::<f64>() / SEEDS as f64 / world.best())
            };
            let shares: Vec<_> = worlds.map(share).collect();
            for (which, expected) in expected.into_iter().enumerate() {
                let shares = shares.iter().map(|share| share[which]);
                let mean = shares.clone().sum::<f64>() / shares.len() as f64;
                let least = shares.clone().fold(1.0, f64::min);
                let all: Vec<_> = shares.map(|share| (1000.0 * share) as u32).collect();
                let found = format!("{exact:?}, {telling}, {which}: {mean:.3}, {least:.3} of {all:?}");
                assert!(mean > expected && least > expected - 0.06, "{found}");
            }
        }
    }
}
