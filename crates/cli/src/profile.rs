//! The time of every op of training, as a table.

use crate::number::fixed;
use offramp_train::profile::{OpTime, Profile};
use std::fmt::Write;

/// A line for each op: milliseconds per step forward and backward, its share, and the rate of its products.
pub(crate) fn table(profile: &Profile) -> String {
    let &Profile { steps, seconds, ref ops } = profile;
    let per_step = |seconds: f64| 1e3 * seconds / steps.max(1) as f64;
    let mut text =
        format!("{:14} {:>12} {:>12} {:>7} {:>9}\n", "op", "forward, ms", "backward, ms", "share", "GFLOP/s");
    let mut line = |name: &str, forward: f64, backward: f64, flops: f64| {
        let both = forward + backward;
        let rate = if flops > 0.0 { fixed(1e-9 * flops / both, 0) } else { String::new() };
        let (forward, backward) = (per_step(forward), per_step(backward));
        let share = fixed(100.0 * both / seconds, 1);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:14} {forward:>12.2} {backward:>12.2} {share:>6}% {rate:>9}");
    };
    for OpTime { op, forward_seconds, backward_seconds, flops } in ops {
        let name = serde_json::to_value(op).ok().and_then(|name| name.as_str().map(str::to_owned));
        line(&name.unwrap_or_default(), *forward_seconds, *backward_seconds, *flops);
    }
    let sum = |of: fn(&OpTime) -> f64| ops.iter().map(of).sum::<f64>();
    let [forward, backward] = [sum(|time| time.forward_seconds), sum(|time| time.backward_seconds)];
    line("other", seconds - forward - backward, 0.0, 0.0);
    line("a step", seconds - backward, backward, sum(|time| time.flops));
    text
}
