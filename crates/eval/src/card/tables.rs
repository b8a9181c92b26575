//! The card's tables: exits, architecture, training, stability.

use super::{Card, EXITS_PLOT, Scores, SpeedFigures, table};
use crate::number::{fixed, grouped, percent, times};
use crate::{GradNorm, Spread, TrainingReport};
use offramp_model::{Config, RopeScaling};

/// The table of exits, and a text on how they were measured.
pub(super) fn exits(card: &Card<'_>) -> String {
    let measured = &card.measured;
    let head = [
        "exit layer",
        "perplexity",
        "bits/byte",
        "agreement with the full model",
        "decode tokens/s",
        "speed-up",
    ];
    let (no_score, no_speed) = (card.command("--data FILE"), card.command("--runs 5"));
    let row = |&exit_layer: &usize| {
        let (score, speed) = measured.at(exit_layer);
        let scored = score.map_or(["–".to_owned(), "–".to_owned(), "–".to_owned()], |score| {
            [fixed(score.perplexity, 2), fixed(score.bits_per_byte, 3), percent(score.agreement, 1)]
        });
        let timed = speed.map_or(["–".to_owned(), "–".to_owned()], |speed| {
            [spread(&speed.decode), times(speed.speed_up)]
        });
        let name = if exit_layer == card.config.num_hidden_layers { " (all)" } else { "" };
        [vec![format!("{exit_layer}{name}")], scored.into(), timed.into()].concat()
    };
    let rows: Vec<_> = card.exits.iter().rev().map(row).collect();
    let plot = match measured.exits().len() > 1 {
        true => format!("\n![Perplexity and tokens per second at every exit]({EXITS_PLOT})\n"),
        false => String::new(),
    };
    let scored =
        measured.validation.as_ref().map_or_else(|| not_measured("Perplexity", &no_score), of_scores);
    let timed = measured.speed.as_ref().map_or_else(|| not_measured("Speed", &no_speed), of_speed);
    let untouched = measured.untouched.as_ref().map_or(String::new(), untouched);
    format!("## What each exit is worth\n\n{}{plot}\n{scored}\n\n{timed}\n{untouched}", table(&head, &rows))
}

fn not_measured(what: &str, command: &str) -> String {
    format!("{what} was not measured: run {command}.")
}

fn of_scores(scores: &Scores) -> String {
    let (tokens, bytes) = scores.exits.first().map_or((0, 0), |exit| (exit.tokens, exit.bytes));
    format!(
        "Perplexity: every token of {} but the first, predicted once ({} tokens, {} bytes of text). Perplexities compare \
         models with the same tokenizer, bits per byte of text any two. Agreement: the share of tokens at which the exit's \
         most likely one is the full model's.",
        scores.data,
        grouped(tokens),
        grouped(bytes)
    )
}

fn of_speed(speed: &SpeedFigures) -> String {
    let processor = speed.processor.as_ref().map_or(String::new(), |name| format!(" ({name})"));
    let SpeedFigures { kernels, threads, formats, prompt_tokens, new_tokens, runs, .. } = speed;
    let plural = if *threads == 1 { "" } else { "s" };
    let samples = if *runs == 1 { "one sample".to_owned() } else { format!("{runs} samples or more") };
    format!(
        "Speed: offramp, {formats}, batch 1, greedy, {new_tokens} tokens after a prompt of {prompt_tokens}; median of \
         {samples} (least–most), exits in turn; {threads} thread{plural}, {kernels}{processor}."
    )
}

fn untouched(scores: &Scores) -> String {
    let Some(full) = scores.deepest() else { return String::new() };
    format!(
        "\nOn text that no choice has touched ({}, {} tokens) the full model has perplexity **{}**, **{} bits/byte**.\n",
        scores.data,
        grouped(full.tokens),
        fixed(full.perplexity, 2),
        fixed(full.bits_per_byte, 3)
    )
}

/// A rate in whole numbers.
fn whole(value: f64) -> String {
    if value.is_finite() { grouped(value.max(0.0).round() as u64) } else { fixed(value, 0) }
}

fn spread(spread: &Spread) -> String {
    let rate = |value: f64| if value >= 100.0 { whole(value) } else { fixed(value, 1) };
    let [median, min, max] = [spread.median, spread.min, spread.max].map(rate);
    format!("{median} ({min}–{max})")
}

/// The architecture, from the config and the weights' files.
pub(super) fn architecture(card: &Card<'_>) -> String {
    let Config { head_dim, num_attention_heads: heads, num_key_value_heads: key_heads, .. } = *card.config;
    let config = card.config;
    let head = if config.tie_word_embeddings { "the embedding" } else { "weights of its own (untied)" };
    let scaling = match config.rope.scaling {
        RopeScaling::Default => "",
        RopeScaling::Linear { .. } => ", linear scaling",
        RopeScaling::Dynamic { .. } => ", dynamic scaling",
        RopeScaling::Llama3 { .. } => ", Llama 3 scaling",
        RopeScaling::Yarn(_) => ", YaRN scaling",
    };
    let rows = [
        ("parameters", grouped(config.parameter_count())),
        ("layers, so exit layers", config.num_hidden_layers.to_string()),
        ("hidden size", config.hidden_size.to_string()),
        ("feed-forward size, SwiGLU", config.intermediate_size.to_string()),
        ("attention heads", format!("{heads} of {head_dim}, {key_heads} of keys and values")),
        ("vocabulary", grouped(config.vocab_size as u64)),
        ("LM head", head.to_owned()),
        ("context", config.context().to_string()),
        ("positions", format!("rotary, theta {}{scaling}", config.rope.theta)),
        ("norm", format!("RMSNorm, epsilon {}", config.rms_norm_eps)),
        ("weights", format!("{}, {} bytes", card.weights.0, grouped(card.weights.1))),
    ];
    format!("## Architecture\n\n{}", of_pairs(&rows))
}

fn of_pairs(rows: &[(&str, String)]) -> String {
    let rows: Vec<_> = rows.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect();
    table(&["", ""], &rows)
}

/// The training, from the journal, the config and the recipe.
pub(super) fn training(card: &Card<'_>) -> String {
    let mut rows = Vec::new();
    if let Some(early_exit) = &card.config.early_exit {
        let dropout = format!("{}, at most {:.3}", early_exit.layer_dropout, early_exit.layer_dropout_max);
        if card.config.trained_for_exits() {
            rows.push((
                "early-exit loss beside the last layer's",
                early_exit.early_exit_loss_scale.to_string(),
            ));
        }
        rows.push(("exits in a step (curriculum)", early_exit.curriculum.clone()));
        rows.push(("layer dropout", dropout));
    }
    let missing = match card.training {
        Some(report) => {
            rows.extend(of_run(report));
            String::new()
        }
        None => format!("\nNo journal was found: run {}.\n", card.command("--run RUN_FOLDER")),
    };
    let rows = if rows.is_empty() { String::new() } else { of_pairs(&rows) };
    let recipe = card.recipe.map_or(String::new(), |recipe| {
        format!(
            "\n<details><summary>The recipe</summary>\n\n```toml\n{}\n```\n\n</details>\n",
            recipe.trim_end()
        )
    });
    format!("## Training\n\n{rows}{missing}{recipe}")
}

fn of_run(report: &TrainingReport) -> Vec<(&'static str, String)> {
    let peak = report.curves.learning_rate.iter().map(|point| point.1).fold(0.0, f64::max);
    let mut rows = vec![
        ("steps", grouped(report.steps)),
        ("tokens seen", grouped(report.tokens)),
        ("peak learning rate", format!("{peak:.1e}")),
        ("training tokens/s, median", whole(report.tokens_per_second.median)),
        ("hours of training steps", fixed(report.seconds / 3600.0, 1)),
    ];
    if let Some(start) = &report.start {
        rows.extend(start.checkpoint.clone().map(|checkpoint| ("begun from", checkpoint)));
        rows.push(("threads", format!("{}, {}", start.threads, start.kernels)));
        rows.push(("seed", start.seed.to_string()));
        rows.push(("trained with", format!("offramp {}", start.version)));
    }
    rows
}

/// The stability, from the journal.
pub(super) fn stability(card: &Card<'_>) -> String {
    let Some(report) = card.training else {
        let command = card.command("--run RUN_FOLDER");
        return format!("## Training stability\n\nNo journal was found: run {command}.\n");
    };
    let GradNorm { median, percentile_99, max } = report.grad_norm;
    let mut rows = vec![
        ("final loss (full model, smoothed, nats per token)", fixed(report.smoothed_loss, 3)),
        ("gradient norm before clipping, median", fixed(median, 2)),
        ("99th percentile", fixed(percentile_99, 2)),
        ("most", fixed(max, 2)),
        ("99th percentile after the warm-up", fixed(report.grad_norm_after_warmup.percentile_99, 2)),
        ("loss spikes (five deviations above the fifty steps before)", report.loss_spikes.to_string()),
        ("steps skipped as not finite", report.skipped.to_string()),
    ];
    if let Some(norm) = report.grad_norm_int4 {
        rows.push(("99th percentile with 4-bit activations", fixed(norm.percentile_99, 2)));
    }
    if let Some(last) = report.validation.last() {
        let exits = last.exits.iter().map(|exit| format!("{} at {}", fixed(exit.loss, 3), exit.exit_layer));
        rows.push(("last validation, nats per token at exit layers", exits.collect::<Vec<_>>().join(", ")));
    }
    format!("## Training stability\n\n{}", of_pairs(&rows))
}
