//! A bench's results as text.

use crate::formats;
use crate::number::{bytes, fixed, percent, rate, times};
use crate::output::TextTable;
use offramp_eval::{ExitSpeed, SpeedReport, Spread};

/// A row for each format and exit, and a line for what they have in common.
pub(super) fn table(reports: &[SpeedReport]) -> String {
    let mut table = TextTable::new([
        "format",
        "exit",
        "decode tokens/s",
        "speed-up",
        "prefill tokens/s",
        "first token",
        "bytes/token",
        "GB/s",
        "of bandwidth",
        "verify",
    ]);
    for report in reports {
        for exit in &report.exits {
            table.row(row(report, exit));
        }
    }
    let notes: String = reports.iter().map(note).collect();
    table.render() + &reports.first().map_or(String::new(), common) + &notes
}

fn row(report: &SpeedReport, exit: &ExitSpeed) -> [String; 10] {
    [
        formats::name(&report.formats),
        exit.exit_layer.to_string(),
        spread(&exit.decode),
        times(exit.speed_up),
        spread(&exit.prefill),
        fixed(1e3 * exit.first_token.median, 1) + " ms",
        bytes(exit.bytes_per_token),
        rate(exit.bytes_per_second.median / 1e9),
        percent(exit.bandwidth_share.median, 0),
        exit.verify.map_or("–".to_owned(), |ratio| times(ratio.median)),
    ]
}

pub(super) fn spread(spread: &Spread) -> String {
    format!("{} ({}–{})", rate(spread.median), rate(spread.min), rate(spread.max))
}

fn common(report: &SpeedReport) -> String {
    let SpeedReport { kernels, threads, prompt_tokens, new_tokens, verify_tokens, runs, .. } = report;
    let verify = match verify_tokens {
        0 => String::new(),
        tokens => format!("; verify: {tokens} tokens in one call against one"),
    };
    format!(
        "prompt {prompt_tokens}, new {new_tokens}, median of {runs} (least–most); {kernels}, threads {threads}{verify}\n"
    )
}

/// A line if other programs used so much of the processors that the speeds are too low; else empty.
pub(crate) fn busy(report: &SpeedReport) -> String {
    report.busy().map_or(String::new(), busy_with)
}

fn busy_with(taken: f64) -> String {
    format!(
        "the machine was busy: other programs took {:.0} % of the processors meanwhile; on a quiet one it is faster\n",
        100.0 * taken
    )
}

/// A line for one format: its memory, and how many samples did not count.
fn note(report: &SpeedReport) -> String {
    let SpeedReport { bandwidth, memory, exits, .. } = report;
    let [median, min, max] = [bandwidth.median, bandwidth.min, bandwidth.max].map(|bytes| rate(bytes / 1e9));
    let peak = memory.peak.map_or(String::new(), |peak| format!(", peak {}", bytes(peak)));
    let (weights, cache) = (bytes(memory.weights), bytes(memory.kv_cache));
    let repeated: usize = exits.iter().map(|exit| exit.repeated).sum();
    let repeats = match repeated {
        0 => String::new(),
        1 => "; 1 sample did not count, the memory's speed changed during it".to_owned(),
        count => format!("; {count} samples did not count, the memory's speed changed during them"),
    };
    let unsteady: Vec<_> =
        exits.iter().filter(|exit| !exit.steady).map(|exit| exit.exit_layer.to_string()).collect();
    let unsteady = match unsteady.is_empty() {
        true => String::new(),
        false => format!("; none did at exit {}: there all are counted", unsteady.join(", ")),
    };
    format!(
        "{}: memory read at {median} GB/s ({min}–{max}); weights {weights}, keys and values {cache}{peak}{repeats}{unsteady}\n{}",
        formats::name(&report.formats),
        busy(report)
    )
}
