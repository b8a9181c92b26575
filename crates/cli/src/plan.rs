//! `offramp train --plan`: what a run would take over several processes, without running it.

use crate::number::{bytes, duration, fixed, grouped, percent};
use crate::output::{self, TextTable};
use crate::shape;
use anyhow::{Result, bail};
use offramp_model::journal::{self, Record};
use offramp_model::run_folder::JOURNAL;
use offramp_train::plan::{Plan, StepTime};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// A process pays if it adds at least this share of what it would add without a network.
const PAYS: f64 = 0.5;

#[derive(Serialize)]
struct Answer {
    /// Gigabytes in a second, each way.
    bandwidth: f64,
    /// Of one process; none if nobody knows.
    tokens_per_second: Option<f64>,
    plans: Vec<Timed>,
    /// The most processes that pay.
    largest: Option<usize>,
}

#[derive(Serialize)]
struct Timed {
    #[serde(flatten)]
    plan: Plan,
    #[serde(flatten)]
    time: Option<StepTime>,
}

/// Prints the plan of a recipe. Its speed in one process is given, or read from the journal of its run.
pub(crate) fn run(
    recipe: &Path,
    folder: &Path,
    bandwidth: f64,
    tokens_per_second: Option<f64>,
    json: bool,
) -> Result<()> {
    if !(bandwidth > 0.0 && tokens_per_second.is_none_or(|rate| rate > 0.0)) {
        bail!("--bandwidth and --tokens-per-second are numbers above 0");
    }
    let (recipe, config) = shape::of_recipe(recipe)?;
    let tokens_per_second = tokens_per_second.or_else(|| of_journal(&folder.join(JOURNAL)));
    let timed = |plan: Plan| Timed {
        plan,
        time: tokens_per_second.map(|rate| plan.step_time(rate, bandwidth * 1e9)),
    };
    let plans: Vec<_> = Plan::all(&recipe, &config).into_iter().map(timed).collect();
    let pays = |timed: &&Timed| timed.time.is_some_and(|time| time.share_of_ideal >= PAYS);
    let largest = plans.iter().filter(pays).map(|timed| timed.plan.ranks).max();
    let answer = Answer { bandwidth, tokens_per_second, plans, largest };
    match json {
        true => output::json(&answer)?,
        false => output::text(&describe(&answer))?,
    }
    Ok(())
}

/// The median speed of the steps in a journal, which one process made.
fn of_journal(path: &Path) -> Option<f64> {
    let records = journal::read(path).ok()?;
    let mut rates: Vec<f64> = records
        .iter()
        .filter_map(
            |record| if let Record::Step(step) = record { Some(step.tokens_per_second) } else { None },
        )
        .filter(|rate| *rate > 0.0)
        .collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

fn describe(answer: &Answer) -> String {
    let mut table = TextTable::new([
        "processes",
        "micro-batches each",
        "memory each",
        "sent in a step, each",
        "step",
        "of the ideal",
        "bits of one process",
    ]);
    for Timed { plan, time } in &answer.plans {
        let unknown = || "-".to_owned();
        table.row([
            plan.ranks.to_string(),
            plan.micro_batches.to_string(),
            bytes(plan.memory),
            bytes(plan.sent),
            time.map_or_else(unknown, |time| duration(Duration::from_secs_f64(time.seconds))),
            time.map_or_else(unknown, |time| percent(time.share_of_ideal, 0)),
            if plan.exact { "yes" } else { "no" }.to_owned(),
        ]);
    }
    let tokens = answer.plans.first().map_or(0, |timed| timed.plan.tokens_per_step);
    let link = fixed(answer.bandwidth, 2);
    let end = match (answer.tokens_per_second, answer.largest) {
        (Some(rate), Some(largest)) => format!(
            "at {} tokens/s in one process and {link} GB/s each way, up to {largest} processes pay: each adds at least half \
             of what it would without a network",
            grouped(rate as u64)
        ),
        _ => "the speed of one process is not known: --tokens-per-second says it, or the journal of a run"
            .to_owned(),
    };
    format!("{}\n{} tokens in a step; {end}\n", table.render(), grouped(tokens))
}
