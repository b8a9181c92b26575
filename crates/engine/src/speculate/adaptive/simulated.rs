//! The policy on machines and models that are made up: how near it comes to the best exit and length, from
//! the first token on.

use super::*;
use crate::chooser::Choice;
use crate::round::Round;
use crate::speculate::together::plan_alone;
use crate::workspace::{Call, CallTime};
use offramp_model::{Config, Formats};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::path::Path;

/// Seconds of a layer, the head and a drafted token's head, and how much longer a call takes for each further
/// row.
#[derive(Clone, Copy, Debug)]
struct Machine {
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

    fn round(&self, exit: usize, length: usize) -> f64 {
        let (exit, length_) = (exit as f64, length as f64);
        let verify = (24.0 - exit + self.head) * self.rows(length + 1);
        (length_ + 1.0) * exit + length_ * self.draft_head + verify
    }
}

/// A large model: reading weights is all. A small one: every row counts.
const MACHINES: [Machine; 2] =
    [Machine { head: 2.9, draft_head: 1.5, row: 0.02 }, Machine { head: 2.4, draft_head: 1.4, row: 0.15 }];

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

/// The best speed-up of a fixed exit and length.
fn best(machine: &Machine, chances: &[f64; 6]) -> f64 {
    let points =
        EXITS.iter().zip(chances).flat_map(|(&exit, &chance)| (1..16).map(move |d| (exit, chance, d)));
    let speed_up = |(exit, chance, length): (usize, f64, usize)| {
        let tokens: f64 = (0..=length).map(|i| f64::powi(chance, i as i32)).sum();
        tokens * machine.plain() / machine.round(exit, length)
    };
    points.map(speed_up).fold(1.0, f64::max)
}

/// The policy's speed-up over a text; margins may tell something of what is right, or nothing.
fn reached(machine: &Machine, chances: &[f64; 6], telling: bool, seed: u64) -> f64 {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut world: Vec<(f64, f64)> = Vec::new(); // of each position: which exits are right there; how sure they are
    let mut adaptive = Adaptive::default();
    let model = model();
    let (mut position, mut seconds) = (0, 0.0);
    while position < TOKENS {
        while world.len() < position + 20 {
            world.push((random.random(), random.random()));
        }
        let mut noise =
            || 1.0 + 0.1 * random.random::<f64>() + f64::from(u8::from(random.random::<f64>() < 0.05));
        // The same token is hard for every exit; one that is right is mostly surer.
        let choice = |exit: usize, at: usize| {
            let chance =
                EXITS.iter().zip(chances).find(|known| *known.0 == exit).map_or(1.0, |known| *known.1);
            let (u, sure) = world[at];
            let right = u < chance;
            let margin = if !telling { sure } else { sure * if right { 1.0 + chance - u } else { 0.6 } };
            (right, margin as f32)
        };
        adaptive.know(&model, None, 24);
        let plan = plan_alone(&mut adaptive, TOKENS);
        let mut took = |what: f64, adaptive: &mut Adaptive, call: Option<Call>, rows: usize| {
            let time = what * noise();
            seconds += time;
            let times = call.map(|call| CallTime { call, rows, seconds: time });
            adaptive.known().costs.learn(times.as_slice());
        };
        let (exit, mut chance) = (plan.exit_layer, 1.0);
        let (mut draft, mut dropped, mut probed) = (Vec::new(), None, Vec::new());
        let (mut rows, mut accepted, mut alive) = (1, 0, true);
        took(exit as f64, &mut adaptive, Some(Call::Layers(exit)), 1);
        while rows <= plan.num_speculations && adaptive.goes_on(exit, rows, chance, 1) {
            let (right, margin) = choice(exit, position + rows - 1);
            took(machine.draft_head, &mut adaptive, Some(Call::DraftHead), 1);
            let choice = Choice { token: u32::from(!right), margin };
            chance *= adaptive.chance(exit, margin);
            if !adaptive.keeps(exit, rows, chance, 1) {
                dropped = Some(choice);
                break;
            }
            draft.push(choice);
            alive &= right;
            accepted += usize::from(alive);
            took(exit as f64, &mut adaptive, Some(Call::Layers(exit)), 1);
            rows += 1;
        }
        if let Some(probe) = plan.probe {
            took(machine.draft_head * machine.rows(rows), &mut adaptive, None, rows);
            probed.extend((0..rows).map(|row| {
                let (right, margin) = choice(probe, position + row);
                Choice { token: u32::from(!right), margin }
            }));
        }
        let above = 24 - exit;
        if above > 0 {
            took(above as f64 * machine.rows(rows), &mut adaptive, Some(Call::Layers(above)), rows);
        }
        took(machine.head * machine.rows(rows), &mut adaptive, Some(Call::Head), rows);
        // The full model's tokens are zeros.
        let tokens = vec![0; accepted + 1];
        let round = &Round { tokens, drafted: draft.len(), accepted, ..Round::default() };
        let (draft, probed) = (&draft[..], &probed[..]);
        adaptive.learn(&Lesson { plan, draft, dropped, probed, round, rows, times: &[] });
        position += accepted + 1;
    }
    position as f64 * machine.plain() * 1.1 / seconds
}

fn model() -> Llama {
    let config = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "vocab_size": 830,
        "num_hidden_layers": 24, "num_attention_heads": 4, "num_key_value_heads": 1, "max_position_embeddings": 64}"#;
    let config = Config::from_json(config, Path::new("config.json")).expect("a valid config");
    Llama::random(config, 1, &Formats::default()).expect("a small model")
}

#[test]
fn it_comes_near_the_best_exit_and_length() {
    for (telling, expected) in [(true, 0.96), (false, 0.94)] {
        let shares = MACHINES.iter().flat_map(|machine| {
            MODELS.iter().map(move |chances| {
                let reached =
                    (0..40).map(|seed| reached(machine, chances, telling, seed)).sum::<f64>() / 40.0;
                reached / best(machine, chances)
            })
        });
        let shares: Vec<f64> = shares.collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        let least = shares.iter().copied().fold(1.0, f64::min);
        assert!(mean > expected && least > expected - 0.05, "{telling}: {mean}: {shares:?}");
    }
}
