//! Where training's time went, as a table.

use crate::number::fixed;
use offramp_train::profile::{OpTime, Profile};
use std::fmt::Write;

/// One line for each op: milliseconds of a step, there and back, its share, and the rate of its products.
pub(crate) fn table(profile: &Profile) -> String {
    let &Profile { steps, seconds, ref ops } = profile;
    let per_step = |seconds: f64| 1e3 * seconds / steps.max(1) as f64;
    let mut text =
        format!("{:14} {:>12} {:>12} {:>7} {:>9}\n", "op", "forward, ms", "backward, ms", "share", "GFLOP/s");
    let mut line = |name: &str, there: f64, back: f64, flops: f64| {
        let both = there + back;
        let rate = if flops > 0.0 { fixed(1e-9 * flops / both, 0) } else { String::new() };
        let (there, back, share) = (per_step(there), per_step(back), fixed(100.0 * both / seconds, 1));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:14} {there:>12.2} {back:>12.2} {share:>6}% {rate:>9}");
    };
    for OpTime { op, forward_seconds, backward_seconds, flops } in ops {
        let name = serde_json::to_value(op).ok().and_then(|name| name.as_str().map(str::to_owned));
        line(&name.unwrap_or_default(), *forward_seconds, *backward_seconds, *flops);
    }
    let sum = |of: fn(&OpTime) -> f64| ops.iter().map(of).sum::<f64>();
    let [there, back] = [sum(|time| time.forward_seconds), sum(|time| time.backward_seconds)];
    line("other", seconds - there - back, 0.0, 0.0);
    line("a step", seconds - back, back, sum(|time| time.flops));
    text
}
