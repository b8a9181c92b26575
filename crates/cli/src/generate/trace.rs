//! A text that shows the origin of every token.

use console::Style;
use offramp_engine::{Origin, Speculation};

/// The text of a token, colored, or between marks where there are no colors.
pub(super) fn paint(text: &str, origin: Origin) -> String {
    // The text is empty while a character is incomplete.
    if text.is_empty() || origin == Origin::Chosen {
        return text.to_owned();
    }
    let (style, [left, right]) = look(origin);
    match console::colors_enabled() {
        true => style.apply_to(text).to_string(),
        false => format!("{left}{text}{right}"),
    }
}

fn look(origin: Origin) -> (Style, [&'static str; 2]) {
    match origin {
        Origin::Chosen => (Style::new(), ["", ""]),
        Origin::Accepted => (Style::new().green(), ["[", "]"]),
        Origin::Corrected => (Style::new().red().bold(), ["{", "}"]),
    }
}

/// The meaning of the colors, and the exits that drafted.
pub(super) fn legend(speculation: &Speculation, depth: usize) -> String {
    let word = |origin, name| paint(name, origin);
    let chosen = speculation.chosen().iter().map(|chosen| {
        let length = chosen.drafted as f64 / chosen.rounds as f64;
        match (chosen.copies, chosen.exit_layer == depth) {
            (false, true) => format!("{} tokens without a draft", chosen.rounds),
            (false, false) => {
                format!("exit {} in {} rounds, {length:.1} tokens each", chosen.exit_layer, chosen.rounds)
            }
            (true, _) => {
                let layers = chosen.exit_layer;
                format!("copies of {layers} layers in {} rounds, {length:.1} tokens each", chosen.rounds)
            }
        }
    });
    let chosen: Vec<_> = chosen.collect();
    let chosen = if chosen.is_empty() { String::new() } else { format!("; auto: {}", chosen.join(", ")) };
    format!(
        "[{}, {}, chosen by all layers{chosen}]",
        word(Origin::Accepted, "drafted and accepted"),
        word(Origin::Corrected, "corrected")
    )
}
