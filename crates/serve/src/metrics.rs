//! Counts and times, in Prometheus' text format.

mod histogram;

use crate::app::App;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use histogram::Histogram;
use offramp_engine::{NewToken, Scheduler};
use offramp_pipeline::Ended;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What was counted so far.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// By depth and origin.
    tokens: BTreeMap<(usize, &'static str), u64>,
    /// By reason.
    texts: BTreeMap<&'static str, u64>,
    refused: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    drafted: u64,
    accepted: u64,
    rounds: u64,
    running: usize,
    waiting: usize,
    kv_used: usize,
    kv_kept: usize,
    kv_capacity: usize,
    first_token: Histogram,
    between_tokens: Histogram,
    steps: Histogram,
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request found no place.
    pub(crate) fn refused(&self) {
        self.counts().refused += 1;
    }

    /// A client left before the end of a text.
    pub(crate) fn cancelled(&self) {
        *self.counts().texts.entry("cancelled").or_default() += 1;
    }

    pub(crate) fn step(&self, taken: Duration) {
        self.counts().steps.add(taken);
    }

    /// Tokens came `now`, of a text that arrived at some time and was last heard of at another.
    pub(crate) fn tokens(&self, tokens: &[NewToken], arrived: Instant, heard: Option<Instant>, now: Instant) {
        if tokens.is_empty() {
            return;
        }
        let mut counts = self.counts();
        match heard {
            None => counts.first_token.add(now - arrived),
            Some(heard) => {
                let each = (now - heard) / u32::try_from(tokens.len()).unwrap_or(u32::MAX);
                tokens.iter().for_each(|_| counts.between_tokens.add(each));
            }
        }
        for token in tokens {
            *counts.tokens.entry((token.depth, crate::logprobs::origin(token.origin))).or_default() += 1;
        }
    }

    /// A text has ended.
    pub(crate) fn ended(&self, ended: &Ended) {
        let mut counts = self.counts();
        *counts.texts.entry(crate::usage::finish(&ended.finish).0).or_default() += 1;
        counts.prompt_tokens += (ended.statistics.prompt_tokens + ended.statistics.cached_tokens) as u64;
        counts.cached_tokens += ended.statistics.cached_tokens as u64;
        counts.drafted += ended.statistics.drafted as u64;
        counts.accepted += ended.statistics.accepted as u64;
        counts.rounds += ended.statistics.rounds as u64;
    }

    /// What the scheduler holds after a step.
    pub(crate) fn sees(&self, scheduler: &Scheduler) {
        let mut counts = self.counts();
        (counts.running, counts.waiting) = scheduler.texts();
        counts.kv_used = scheduler.pool().used();
        counts.kv_kept = scheduler.kept_positions();
        counts.kv_capacity = scheduler.pool().capacity();
    }

    /// Everything as text.
    fn show(&self, most_places: usize, places_left: usize) -> String {
        let counts = self.counts();
        let mut text = Exposition::default();
        let tokens = counts.tokens.iter().map(|((depth, origin), count)| {
            (format!("exit_layer=\"{depth}\",origin=\"{origin}\""), *count as f64)
        });
        text.family(
            "offramp_tokens_total",
            "counter",
            "New tokens, by the layers they took and their origin",
            tokens,
        );
        let ends = counts.texts.iter().map(|(reason, count)| (format!("reason=\"{reason}\""), *count as f64));
        text.family("offramp_texts_total", "counter", "Texts that ended", ends);
        let generated: u64 = counts.tokens.values().sum();
        for (name, kind, help, value) in [
            ("offramp_texts_running", "gauge", "Texts that take part in steps", counts.running as f64),
            ("offramp_texts_waiting", "gauge", "Texts that wait for memory", counts.waiting as f64),
            ("offramp_places", "gauge", "Texts that may run or wait", most_places as f64),
            ("offramp_places_left", "gauge", "Places that are free", places_left as f64),
            ("offramp_requests_refused_total", "counter", "Requests without a place", counts.refused as f64),
            ("offramp_prompt_tokens_total", "counter", "Tokens of prompts", counts.prompt_tokens as f64),
            (
                "offramp_cached_tokens_total",
                "counter",
                "Those that were in the cache",
                counts.cached_tokens as f64,
            ),
            ("offramp_kv_positions", "gauge", "Positions that the memory holds", counts.kv_capacity as f64),
            (
                "offramp_kv_positions_used",
                "gauge",
                "Positions in use, kept ones among them",
                counts.kv_used as f64,
            ),
            (
                "offramp_kv_positions_kept",
                "gauge",
                "Positions of texts that have ended",
                counts.kv_kept as f64,
            ),
            ("offramp_drafted_tokens_total", "counter", "Tokens that were drafted", counts.drafted as f64),
            (
                "offramp_accepted_tokens_total",
                "counter",
                "Drafted tokens that were accepted",
                counts.accepted as f64,
            ),
            (
                "vllm:prompt_tokens_total",
                "counter",
                "As offramp_prompt_tokens_total",
                counts.prompt_tokens as f64,
            ),
            ("vllm:generation_tokens_total", "counter", "New tokens", generated as f64),
            (
                "vllm:spec_decode_num_drafts_total",
                "counter",
                "Rounds of texts that ended",
                counts.rounds as f64,
            ),
            (
                "vllm:spec_decode_num_draft_tokens_total",
                "counter",
                "Tokens that were drafted",
                counts.drafted as f64,
            ),
            (
                "vllm:spec_decode_num_accepted_tokens_total",
                "counter",
                "Those accepted",
                counts.accepted as f64,
            ),
        ] {
            text.family(name, kind, help, [(String::new(), value)]);
        }
        text.histogram("offramp_time_to_first_token_seconds", "Time to the first token", &counts.first_token);
        text.histogram("offramp_time_between_tokens_seconds", "Time between tokens", &counts.between_tokens);
        text.histogram("offramp_step_seconds", "Time of a step of all texts", &counts.steps);
        text.0
    }
}

/// Prometheus' text format, version 0.0.4.
#[derive(Debug, Default)]
struct Exposition(String);

impl Exposition {
    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, f64)>,
    ) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (bound, count) in histogram.buckets() {
            let _ = writeln!(self.0, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(self.0, "{name}_bucket{{le=\"+Inf\"}} {}", histogram.count());
        let _ = writeln!(self.0, "{name}_sum {}\n{name}_count {}", histogram.sum(), histogram.count());
    }
}

/// Counts and times for Prometheus.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn show(State(app): State<Arc<App>>) -> impl IntoResponse {
    let text = app.metrics.show(app.most_places, app.places.available_permits());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
