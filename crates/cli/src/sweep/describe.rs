//! A sweep's results as text.

use super::MadeUp;
use crate::number::{fixed, percent, rate, times};
use crate::output::TextTable;
use offramp_eval::{Spread, SweepReport, Verdict};
use offramp_model::{DraftHead, Format};

/// A row for each exit and length.
pub(super) fn table(report: &SweepReport) -> String {
    let mut table =
        TextTable::new(["exit", "length", "accepted by position", "of next", "tokens/s", "speed-up", ""]);
    for (index, point) in report.points.iter().enumerate() {
        table.row([
            drafter(point.exit_layer, point.draft_format),
            point.num_speculations.to_string(),
            by_position(&point.acceptance_by_position),
            percent(point.acceptance_of_next, 1),
            rate(point.decode.median),
            speed_up(&point.speed_up),
            if index == report.best { "best".to_owned() } else { String::new() },
        ]);
    }
    let auto = &report.auto;
    table.row([
        "auto".to_owned(),
        String::new(),
        auto.acceptance_rate.map_or("–".to_owned(), |share| percent(share, 0) + " of drafted"),
        String::new(),
        rate(auto.decode.median),
        speed_up(&auto.speed_up),
        percent(auto.of_best.median, 0) + " of the best",
    ]);
    table.render()
}

/// The share of drafts that were accepted up to each token.
fn by_position(shares: &[f64]) -> String {
    shares.iter().map(|share| fixed(100.0 * share, 0)).collect::<Vec<_>>().join(" ") + " %"
}

/// An exit, and the format of the copies that draft there.
fn drafter(exit_layer: usize, format: Option<Format>) -> String {
    format.map_or_else(|| exit_layer.to_string(), |format| format!("{exit_layer} in {format}"))
}

fn speed_up(spread: &Spread) -> String {
    format!("{} ({}–{})", times(spread.median), fixed(spread.min, 2), fixed(spread.max, 2))
}

/// Whether drafting pays, and what to do.
pub(super) fn verdict(report: &SweepReport, made_up: bool) -> String {
    let best = &report.points[report.best];
    let [gain, auto] = [&best.speed_up, &report.auto.speed_up].map(|spread| times(spread.median));
    let advice = match report.verdict {
        Verdict::Pays => "speculation pays",
        Verdict::Unsure => "speculation pays in some texts only; more --runs tell more",
        Verdict::Loses => "leave speculation off",
    };
    let format = best.draft_format.map_or_else(String::new, |format| format!(" --draft-format {format}"));
    let advice = format!(
        "best {gain} (--speculate {}:{}{format}), auto {auto}: {advice}",
        best.exit_layer, best.num_speculations
    );
    match (made_up, report.trained_for_exits) {
        (true, _) => format!("{advice}\n"),
        (false, true) => format!("trained for exits: yes; {advice}\n"),
        (false, false) => format!("trained for exits: its configuration does not say so; {advice}\n"),
    }
}

/// The settings, and what `auto` chose.
pub(super) fn notes(report: &SweepReport, head: Option<&DraftHead>, made_up: Option<&MadeUp>) -> String {
    let SweepReport { plain, new_tokens, runs, kernels, threads, auto, .. } = report;
    let head = match head {
        Some(head) => format!("drafts by {} rows of the head in {}", head.tokens(), head.format()),
        None => "drafts by the model's own head".to_owned(),
    };
    let mut notes = format!(
        "plain decoding {} tokens/s ({}–{}); {new_tokens} new tokens, median of {runs} (least–most); {head}; {kernels}, \
         threads {threads}\n",
        rate(plain.median),
        rate(plain.min),
        rate(plain.max)
    );
    let chosen = auto.chosen.iter().map(|chosen| match chosen.drafted {
        0 => format!("{} tokens without a draft", chosen.rounds),
        drafted => {
            let length = drafted as f64 / chosen.rounds as f64;
            let drafter = drafter(chosen.exit_layer, chosen.draft_format);
            format!("exit {drafter}: {} rounds of {length:.1} tokens", chosen.rounds)
        }
    });
    notes += &format!("auto chose: {}\n", chosen.collect::<Vec<_>>().join(", "));
    let share = |spread: &Spread| {
        let [min, max] = [spread.min, spread.max].map(|share| fixed(100.0 * share, 1));
        format!("{} ({min}–{max})", percent(spread.median, 1))
    };
    notes += &format!(
        "auto beside the best point, again in turn: {}; keeping from text to text what it learnt: {}\n",
        share(&auto.of_best),
        share(&auto.kept_of_best)
    );
    if let Some(MadeUp { exit_layer, scale, acceptance }) = made_up {
        notes += &format!(
            "the weights are made up: what layers add is scaled by {scale:.3}, so that the next token that exit \
             {exit_layer} drafts is accepted at {:.1} %\n",
            100.0 * acceptance
        );
    }
    notes
}
