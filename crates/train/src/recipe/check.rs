//! Which recipes can be run.

use super::early_exit::{Curriculum, ExitWeights};
use super::model_keys::LowBit;
use super::optimizer::{LAST_INT4_FROM, Matrices};
use super::whole::Recipe;
use crate::error::Result;
use crate::start::tokenizer_file;
use start::{family, start};

mod start;

/// More would be a mistake. Whether a micro-batch fits the memory is checked elsewhere.
const MAX_TOKENS: usize = 1 << 24;
/// Micro-batches of all steps are counted in 64 bits.
const MAX_STEPS: u64 = 1 << 40;

pub(super) fn check(recipe: &Recipe) -> Result<()> {
    data(recipe)?;
    training(recipe)?;
    optimizer(recipe)?;
    stages(recipe)?;
    early_exit(recipe)?;
    averages(recipe)?;
    saving(recipe)?;
    start(recipe)?;
    // Before layer dropout, whose message would be about itself.
    let layers = recipe.model.num_hidden_layers;
    ensure(layers >= 1, || recipe.fault("model.num_hidden_layers", layers, "1 or more"))?;
    family(recipe)?;
    // The sizes, with the smallest vocabulary where the tokenizer's is not yet known.
    recipe.config(if recipe.model.vocab_size == 0 { 1 } else { recipe.model.vocab_size }, None)?;
    Ok(())
}

pub(super) fn ensure(good: bool, fault: impl FnOnce() -> crate::Error) -> Result<()> {
    if good { Ok(()) } else { Err(fault()) }
}

fn data(recipe: &Recipe) -> Result<()> {
    let data = &recipe.data;
    let fault = |key: &str, expected: &str| recipe.fault(&format!("data.{key}"), "given", expected);
    match (&data.corpus, &data.train) {
        (None, None) => {
            return Err(recipe.fault(
                "data.corpus",
                "left out",
                "the folder of a prepared corpus; or give data.train, the stories to prepare",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(fault("train", "left out where data.corpus names a prepared corpus"));
        }
        (Some(_), None) => {
            let of_train = [
                ("valid", data.valid.is_some()),
                ("tokenizer", data.tokenizer.is_some()),
                ("vocab_size", data.vocab_size.is_some()),
            ];
            for (key, given) in of_train {
                let expected = "left out where data.corpus names a prepared corpus, which has its own";
                ensure(!given, || fault(key, expected))?;
            }
        }
        (None, Some(train)) => {
            ensure(!train.0.is_empty(), || {
                recipe.fault("data.train", "[]", "a file of stories, or a list of at least one")
            })?;
            let own = recipe.start.checkpoint.as_deref().and_then(tokenizer_file).is_some();
            // A run that has kept its corpus needs no tokenizer, and its checkpoint may be gone.
            ensure(data.tokenizer.is_some() || own || recipe.resumes, || {
                let expected = "\"gpt2\", \"bpe\" or the path of a tokenizer.json or of a GGUF file";
                recipe.fault("data.tokenizer", "left out", expected)
            })?;
            let trained = data.tokenizer.as_deref() == Some("bpe");
            ensure(trained || data.vocab_size.is_none(), || {
                fault("vocab_size", "left out unless data.tokenizer is \"bpe\"")
            })?;
            ensure(!trained || data.vocab_size.is_some_and(|size| (257..=1 << 24).contains(&size)), || {
                let found = data.vocab_size.map_or("left out".to_owned(), |size| size.to_string());
                recipe.fault(
                    "data.vocab_size",
                    found,
                    "257 or more (256 bytes and <|endoftext|>), at most 2^24",
                )
            })?;
        }
    }
    Ok(())
}

fn training(recipe: &Recipe) -> Result<()> {
    let training = &recipe.training;
    for (key, found) in [
        ("training.sequence_length", training.sequence_length),
        ("training.batch_size", training.batch_size),
        ("training.accumulation", training.accumulation),
    ] {
        ensure((1..=MAX_TOKENS).contains(&found), || recipe.fault(key, found, format!("1 to {MAX_TOKENS}")))?;
    }
    let steps = training.steps;
    ensure((1..=MAX_STEPS).contains(&steps), || {
        recipe.fault("training.steps", steps, format!("1 to {MAX_STEPS}"))
    })?;
    // TOML's integers have a sign, so that a larger seed could not be written back.
    ensure(i64::try_from(training.seed).is_ok(), || {
        recipe.fault("training.seed", training.seed, "at most 2^63 − 1")
    })?;
    let length = training.sequence_length;
    // With a scaling for longer contexts, a model takes more positions than this key says.
    let (context, of) = match recipe.begins_as() {
        Some(config) => (config.prompt_context(), "the context of start.checkpoint"),
        None => (recipe.model.max_position_embeddings, "model.max_position_embeddings"),
    };
    ensure(length <= context, || {
        recipe.fault("training.sequence_length", length, format!("at most {of}, {context}"))
    })
}

fn optimizer(recipe: &Recipe) -> Result<()> {
    let optimizer = &recipe.optimizer;
    let range = |key: &str, found: f64, good: bool, expected: &str| {
        ensure(good && found.is_finite(), || recipe.fault(key, found, expected))
    };
    let rate = optimizer.learning_rate;
    range("optimizer.learning_rate", rate, rate > 0.0 && rate <= 10.0, "above 0 and at most 10")?;
    for beta in optimizer.betas {
        range(
            "optimizer.betas",
            beta,
            (0.0..1.0).contains(&beta),
            "two numbers, each 0 or more and below 1",
        )?;
    }
    // In f32 a smaller eps is zero, and 0/0 would follow.
    let eps = optimizer.eps;
    range("optimizer.eps", eps, (1e-30..=1.0).contains(&eps), "1e-30 to 1")?;
    let decay = optimizer.weight_decay;
    range("optimizer.weight_decay", decay, (0.0..=10.0).contains(&decay), "0 to 10")?;
    let clip = optimizer.clip;
    range("optimizer.clip", clip, (0.0..=1e6).contains(&clip), "0 (do not clip) to 1e6")?;
    if let Some(momentum) = optimizer.muon_momentum {
        let (key, good) = ("optimizer.muon_momentum", (0.0..1.0).contains(&momentum));
        range(key, momentum, good, "0 or more and below 1")?;
        let muon = optimizer.matrices == Matrices::Muon;
        range(key, momentum, muon, "left out unless optimizer.matrices is \"muon\"")?;
    }
    let fraction = recipe.schedule.final_fraction;
    range("schedule.final_fraction", fraction, (0.0..=1.0).contains(&fraction), "0 to 1")?;
    let warmup = recipe.schedule.warmup_steps;
    ensure(warmup <= recipe.training.steps, || {
        let expected = format!("at most training.steps, {}", recipe.training.steps);
        recipe.fault("schedule.warmup_steps", warmup, expected)
    })?;
    let deviation = recipe.model.initializer_range;
    range(
        "model.initializer_range",
        deviation,
        deviation > 0.0 && deviation <= 1.0,
        "above 0 and at most 1",
    )?;
    let p_max = recipe.layer_dropout.p_max;
    range("layer_dropout.p_max", p_max, (0.0..=1.0).contains(&p_max), "0 to 1")
}

/// The second stage of the schedule, and the part with 4-bit activations.
fn stages(recipe: &Recipe) -> Result<()> {
    let (optimizer, schedule) = (&recipe.optimizer, &recipe.schedule);
    let share = |key: &str, found: Option<f64>, range: std::ops::RangeInclusive<f64>, expected: &str| {
        let good = found.is_none_or(|found| range.contains(&found));
        ensure(good, || recipe.fault(key, found.unwrap_or_default(), expected))
    };
    share("schedule.second_stage", schedule.second_stage, 0.0..=1.0, "a share of the steps, 0 to 1")?;
    share("schedule.second_fraction", schedule.second_fraction, 0.0..=1.0, "0 to 1")?;
    share("optimizer.second_weight_decay", optimizer.second_weight_decay, 0.0..=10.0, "0 to 10")?;
    let expected = "0 to 0.9: activations have 4 bits in at least the last 10 % of the steps";
    share("schedule.int4_from", schedule.int4_from, 0.0..=LAST_INT4_FROM, expected)?;
    for (key, found) in [
        ("schedule.second_fraction", schedule.second_fraction),
        ("optimizer.second_weight_decay", optimizer.second_weight_decay),
    ] {
        let expected = "left out unless schedule.second_stage says when it begins";
        ensure(found.is_none() || schedule.second_stage.is_some(), || {
            recipe.fault(key, found.unwrap_or_default(), expected)
        })?;
    }
    let four_bits = recipe.model.bit_linear == Some(LowBit::V2);
    ensure(four_bits || schedule.int4_from.is_none(), || {
        let expected = "left out unless model.bit_linear is \"bitskip-v2\"";
        recipe.fault("schedule.int4_from", schedule.int4_from.unwrap_or_default(), expected)
    })
}

fn early_exit(recipe: &Recipe) -> Result<()> {
    let keys = &recipe.early_exit;
    let scale = keys.loss_scale;
    ensure((0.0..=1e3).contains(&scale), || recipe.fault("early_exit.loss_scale", scale, "0 to 1000"))?;
    let exits = recipe.model.num_hidden_layers.saturating_sub(1);
    match (keys.curriculum, keys.period) {
        (Curriculum::Rotational, None) => {
            let expected = "the steps in which every exit has its turn, as the curriculum is rotational";
            return Err(recipe.fault("early_exit.period", "left out", expected));
        }
        (Curriculum::Rotational, Some(period)) => ensure((1..=exits).contains(&period), || {
            let expected = format!("1 to {exits}, the exits before the last layer");
            recipe.fault("early_exit.period", period, expected)
        })?,
        (_, Some(period)) => {
            let expected = "left out unless early_exit.curriculum is \"rotational\"";
            return Err(recipe.fault("early_exit.period", period, expected));
        }
        (_, None) => (),
    }
    match (keys.curriculum, keys.sample_fraction) {
        (Curriculum::Sampled, None) => {
            let expected =
                "the share of positions at which each exit is scored, as the curriculum is sampled";
            return Err(recipe.fault("early_exit.sample_fraction", "left out", expected));
        }
        (Curriculum::Sampled, Some(share)) => ensure(share > 0.0 && share <= 1.0, || {
            recipe.fault("early_exit.sample_fraction", share, "above 0 and at most 1")
        })?,
        (_, Some(share)) => {
            let expected = "left out unless early_exit.curriculum is \"sampled\"";
            return Err(recipe.fault("early_exit.sample_fraction", share, expected));
        }
        (_, None) => (),
    }
    let by_chance = matches!(keys.curriculum, Curriculum::Rotational | Curriculum::Sampled);
    ensure(by_chance || !keys.unbiased, || {
        let expected = "false unless early_exit.curriculum is \"rotational\" or \"sampled\"";
        recipe.fault("early_exit.unbiased", true, expected)
    })?;
    ensure(keys.normalize_weights || keys.weights != ExitWeights::Layerskip, || {
        let expected = "true where early_exit.weights is \"layerskip\", which are divided by their sum";
        recipe.fault("early_exit.normalize_weights", false, expected)
    })?;
    teacher(recipe)?;
    ensure(!keys.own_heads || recipe.start.checkpoint.is_none(), || {
        let expected = "false where start.checkpoint brings the weights: it has one head";
        recipe.fault("early_exit.own_heads", true, expected)
    })
}

fn teacher(recipe: &Recipe) -> Result<()> {
    let keys = &recipe.early_exit;
    let share = keys.teacher_share.unwrap_or(1.0);
    ensure(share > 0.0 && share <= 1.0, || {
        recipe.fault("early_exit.teacher_share", share, "above 0 and at most 1")
    })?;
    let alone = [
        ("early_exit.teacher_share", keys.teacher_share.is_some()),
        ("early_exit.teacher_loss", keys.teacher_loss.is_some()),
    ];
    for (key, given) in alone {
        ensure(!given || keys.teacher.is_some(), || {
            recipe.fault(key, "given", "left out unless early_exit.teacher is \"final\"")
        })?;
    }
    ensure(keys.teacher.is_none() || keys.curriculum != Curriculum::None, || {
        let expected = "left out where early_exit.curriculum is \"none\": no exit learns";
        recipe.fault("early_exit.teacher", "final", expected)
    })
}

fn averages(recipe: &Recipe) -> Result<()> {
    let (keys, steps) = (&recipe.averages, recipe.training.steps);
    if let Some(decay) = keys.ema_decay {
        ensure((0.0..1.0).contains(&decay), || {
            recipe.fault("averages.ema_decay", decay, "0 or more and below 1, such as 0.999")
        })?;
    }
    if let Some(start) = keys.swa_start {
        ensure((1..=steps).contains(&start), || {
            recipe.fault("averages.swa_start", start, format!("a step of the run, 1 to {steps}"))
        })?;
    }
    if let Some(every) = keys.swa_every {
        ensure(every >= 1, || recipe.fault("averages.swa_every", every, "1 or more"))?;
        ensure(keys.swa_start.is_some(), || {
            recipe.fault(
                "averages.swa_every",
                every,
                "left out unless averages.swa_start says where the mean begins",
            )
        })?;
    }
    // Weights between two ternary codes round to either of them.
    ensure(crate::averages::count(keys) == 0 || recipe.model.bit_linear.is_none(), || {
        let expected =
            "left out where model.bit_linear is given: a mean of ternary weights is no ternary model";
        recipe.fault("[averages]", "given", expected)
    })
}

fn saving(recipe: &Recipe) -> Result<()> {
    let (layers, keep) = (recipe.model.num_hidden_layers, recipe.checkpoint.keep);
    ensure(keep >= 1, || recipe.fault("checkpoint.keep", keep, "1 or more"))?;
    let exits = recipe.validation.exits.iter().flatten();
    for &exit in exits {
        ensure((1..=layers).contains(&exit), || {
            recipe.fault("validation.exits", exit, format!("exit layers from 1 to {layers}"))
        })?;
    }
    Ok(())
}
