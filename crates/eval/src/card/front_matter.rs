//! The front matter for the Hugging Face Hub: YAML, with the results as a `model-index`.

use super::{Card, Measured};

/// The front matter, between its two lines of dashes.
pub(super) fn yaml(card: &Card<'_>) -> String {
    let mut lines = vec!["---".to_owned()];
    let fact =
        |key: &str, value: &Option<String>| value.iter().map(|v| format!("{key}: {}", quoted(v))).collect();
    let mut add = |found: Vec<String>| lines.extend(found);
    add(fact("license", &card.facts.license));
    add(fact("language", &card.facts.language));
    if card.is_float() {
        add(vec!["library_name: transformers".to_owned()]);
    }
    if let Some(gguf) = card.gguf {
        add(vec!["library_name: gguf".to_owned()]);
        add(fact("base_model", &gguf.base_model.map(str::to_owned)));
    }
    add(["pipeline_tag: text-generation", "tags:", "- early-exit", "- layer-skip", "- llama", "- offramp"]
        .map(str::to_owned)
        .into());
    if card.gguf.is_some() {
        add(vec!["- gguf".to_owned()]);
    }
    if let Some(dataset) = &card.facts.dataset {
        add(vec!["datasets:".to_owned(), format!("- {}", quoted(dataset))]);
    }
    add(model_index(card));
    add(vec!["---".to_owned()]);
    lines.join("\n") + "\n"
}

/// The measured results; nothing if there are none.
fn model_index(card: &Card<'_>) -> Vec<String> {
    let Measured { validation, untouched, speed, .. } = &card.measured;
    let mut lines = Vec::new();
    for (scores, exits) in [(validation, Some(card.exits)), (untouched, None)] {
        let Some(scores) = scores else { continue };
        let mut metrics = Vec::new();
        let listed = |exit_layer| exits.is_none_or(|exits| exits.contains(&exit_layer));
        for exit in scores.exits.iter().filter(|exit| listed(exit.exit_layer)) {
            let e = exit.exit_layer;
            metrics.extend(metric("perplexity", &format!("perplexity, exit layer {e}"), exit.perplexity));
            metrics.extend(metric(
                "bits_per_byte",
                &format!("bits/byte, exit layer {e}"),
                exit.bits_per_byte,
            ));
        }
        lines.extend(result(card, &scores.data, &metrics));
    }
    if let Some(speed) = speed {
        let listed = speed.exits.iter().filter(|exit| card.exits.contains(&exit.exit_layer));
        let decode = listed.filter_map(|exit| {
            let name = format!("decode tokens/s, exit layer {}", exit.exit_layer);
            metric("tokens_per_second", &name, exit.decode.median)
        });
        let prompt = format!("a prompt of {} tokens", speed.prompt_tokens);
        lines.extend(result(card, &prompt, &decode.collect::<Vec<_>>()));
    }
    if lines.is_empty() {
        return lines;
    }
    let head = ["model-index:".to_owned(), format!("- name: {}", quoted(card.name)), "  results:".to_owned()];
    head.into_iter().chain(lines).collect()
}

fn result(card: &Card<'_>, data: &str, metrics: &[String]) -> Vec<String> {
    if metrics.is_empty() {
        return Vec::new();
    }
    let dataset = card.facts.dataset.as_deref().unwrap_or(data);
    let head = [
        "  - task:".to_owned(),
        "      type: text-generation".to_owned(),
        "    dataset:".to_owned(),
        format!("      type: {}", quoted(dataset)),
        format!("      name: {}", quoted(data)),
        "    metrics:".to_owned(),
    ];
    head.into_iter().chain(metrics.iter().cloned()).collect()
}

/// `None` if there is no number: the Hub accepts no other value.
fn metric(kind: &str, name: &str, value: f64) -> Option<String> {
    let line =
        || format!("    - type: {kind}\n      name: {}\n      value: {}", quoted(name), rounded(value));
    value.is_finite().then(line)
}

/// Five significant digits: more than a repeated measurement would reproduce.
fn rounded(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}

/// A YAML string. JSON strings are YAML strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
