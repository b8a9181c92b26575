//! What docs/server.md promises of several machines, with HAProxy and nginx as they are. `crates/serve/test`
//! names them and runs these; without `OFFRAMP_HAPROXY` and `OFFRAMP_NGINX` they are skipped with a line.

use crate::client::{Reply, ask, begin, begin_with, finish};
use crate::fleet::{Changes, Fleet, fleets};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

const COMPLETIONS: &str = "/v1/completions";

/// Four texts that take a second or more.
fn long(prompt: &str, streams: bool) -> String {
    let text = json!({ "prompt": prompt, "max_tokens": 450, "n": 4, "ignore_eos": true, "seed": 5, "stream": streams });
    text.to_string()
}

/// A greedy text of a few tokens.
fn short(prompt: &str) -> String {
    json!({ "prompt": prompt, "max_tokens": 6, "temperature": 0, "logprobs": 3 }).to_string()
}

/// Three prompts for each replica.
fn prompts(fleet: &Fleet) -> [Vec<String>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for number in 0..200 {
        let prompt = format!("Story {number}. Once upon a time");
        let (replica, _) = fleet.who_answers(COMPLETIONS, &short(&prompt));
        found[replica].push(prompt);
        if found.iter().all(|prompts| prompts.len() >= 3) {
            return found;
        }
    }
    panic!("{:?} spreads nothing: {found:?}", fleet.balancer);
}

fn completion(fleet: &Fleet, prompt: &str) -> Reply {
    ask(fleet.address, COMPLETIONS, Some(&short(prompt)))
}

/// Whether a replica answers what is its own.
fn is_used(fleet: &Fleet, replica: usize, prompt: &str) -> bool {
    let texts = || fleet.replicas[replica].metric("offramp_texts_total");
    let before = texts();
    completion(fleet, prompt);
    texts() > before
}

/// A request of an own kind, and how much of its prompt was in the cache.
type Turn = (&'static str, String);

/// Three requests of a conversation, each with all messages so far. Clients write them in several ways.
fn conversation(number: usize, way: usize) -> Vec<Turn> {
    let said = |turn: usize| {
        format!("This is what visitor {number} asks in turn {turn}: what does the heron eat today?")
    };
    let system = "You are a heron. You speak of fish, of frogs and of the river, and you are always kind to the \
                  children who come to see you. You never say no.";
    let (mut messages, mut turns) = (Vec::new(), Vec::new());
    for turn in 0..3 {
        let parts = json!([{ "type": "text", "text": said(turn) }]);
        messages.push(match way {
            1 => json!({ "role": "user", "content": parts }).to_string(),
            2 => format!(r#"{{ "role" : "user", "content" : "{}" }}"#, said(turn)),
            _ => json!({ "role": "user", "content": said(turn) }).to_string(),
        });
        let all = messages.join(", ");
        let with_system = json!({ "role": "system", "content": system });
        turns.push(match way {
            0 => ("/v1/chat/completions", format!(r#"{{"messages": [{with_system}, {all}], "max_tokens": 4}}"#)),
            1 => ("/v1/chat/completions", format!(r#"{{"model": "model", "max_tokens": {}, "messages": [{all}]}}"#, 3 + turn)),
            2 => ("/v1/responses", format!(r#"{{"max_output_tokens": 4, "input": [{all}], "instructions": "{system}"}}"#)),
            _ => ("/v1/completions", json!({ "prompt": system.repeat(2) + &said(0).repeat(turn), "prompt_cache_key": number.to_string(), "max_tokens": 4 }).to_string()),
        });
        messages.push(json!({ "role": "assistant", "content": format!("Fish, {turn}.") }).to_string());
    }
    turns
}

#[test]
fn a_conversation_stays_on_one_replica_and_many_are_spread() {
    for fleet in fleets(Changes::default()) {
        for way in 0..4 {
            let mut answered = [0; 2];
            for number in 0..8 {
                let turns = conversation(number, way);
                let replies: Vec<_> =
                    turns.iter().map(|(path, body)| fleet.who_answers(path, body)).collect();
                let replica = replies[0].0;
                assert!(
                    replies.iter().all(|(other, _)| *other == replica),
                    "{:?}: {turns:?}",
                    fleet.balancer
                );
                let usage = &replies[2].1.json()["usage"];
                let details = [&usage["prompt_tokens_details"], &usage["input_tokens_details"]];
                let cached: u64 =
                    details.iter().filter_map(|details| details["cached_tokens"].as_u64()).sum();
                assert!(cached > 0, "its beginning was kept: {usage}");
                answered[replica] += 1;
            }
            assert!(
                answered.iter().all(|count| *count > 0),
                "{:?} spreads way {way}: {answered:?}",
                fleet.balancer
            );
        }
    }
}

#[test]
fn prompts_with_one_beginning_go_to_one_replica_and_long_ones_are_answered() {
    for fleet in fleets(Changes::default()) {
        let mut answered = [0; 2];
        for number in 0..8 {
            let beginning =
                format!("Story {number}: \"The heron,\" they said, \"has caught a fish.\" ").repeat(6);
            let ids: Vec<usize> = (0..200).map(|index| 20 + (index * (number + 1)) % 900).collect();
            let text =
                |rest: &str| json!({ "max_tokens": 1, "prompt": format!("{beginning}{rest}") }).to_string();
            let of_ids = |last: usize| {
                let ids = [&ids[..], &[last]].concat();
                json!({ "max_tokens": 1, "prompt": ids }).to_string()
            };
            for bodies in [[text("a"), text("Then it slept."), text("\"")], [of_ids(7), of_ids(8), of_ids(9)]]
            {
                let replicas = bodies.map(|body| fleet.who_answers(COMPLETIONS, &body).0);
                assert!(replicas.iter().all(|other| *other == replicas[0]), "{:?}: {number}", fleet.balancer);
                answered[replicas[0]] += 1;
            }
        }
        assert!(answered.iter().all(|count| *count > 0), "{:?}: {answered:?}", fleet.balancer);
        // Longer than what is looked at, and than what is kept to be repeated.
        for length in [100 << 10, 200 << 10, 7 << 20] {
            let body = json!({ "max_tokens": 1, "prompt": "Once", "user": "x".repeat(length) }).to_string();
            fleet.who_answers(COMPLETIONS, &body);
        }
    }
}

#[test]
fn answers_are_those_of_every_replica_whatever_the_load() {
    for fleet in fleets(Changes::default()) {
        let prompts: Vec<String> =
            (0..12).map(|number| format!("Story {number}. Once upon a time")).collect();
        let expected: Vec<String> = prompts
            .iter()
            .map(|prompt| {
                let [one, two] =
                    [0, 1].map(|index| ask(fleet.replicas[index].address, COMPLETIONS, Some(&short(prompt))));
                assert_eq!(one.choices(), two.choices(), "two replicas");
                one.choices().to_owned()
            })
            .collect();
        thread::scope(|scope| {
            for first in 0..8 {
                let (fleet, prompts, expected) = (&fleet, &prompts, &expected);
                scope.spawn(move || {
                    for index in (first..first + 12).map(|index| index % 12) {
                        let reply = completion(fleet, &prompts[index]);
                        assert_eq!(reply.choices(), expected[index], "{:?}", fleet.balancer);
                    }
                });
            }
        });
        let texts = fleet.replicas.each_ref().map(|replica| replica.metric("offramp_texts_total"));
        assert!(texts.iter().all(|count| *count > 12.0), "both took part: {texts:?}");
    }
}

#[test]
fn a_replica_that_dies_loses_its_own_streams_only() {
    for mut fleet in fleets(Changes::default()) {
        let [first, second] = prompts(&fleet);
        let expected: Vec<Reply> =
            first.iter().chain(&second).map(|prompt| completion(&fleet, prompt)).collect();
        let [lost, kept] = [&first[0], &second[0]]
            .map(|prompt| begin(fleet.address, COMPLETIONS, Some(&long(prompt, true))));
        let whole = begin(fleet.address, COMPLETIONS, Some(&long(&first[1], false)));
        // Both streams have begun, and all texts run.
        let running =
            |fleet: &Fleet| fleet.replicas.each_ref().map(|replica| replica.metric("offramp_texts_running"));
        fleet.wait(|fleet| running(fleet) == [8.0, 4.0]);
        for stream in [&lost, &kept] {
            assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
        }
        fleet.replicas[0].signal("-KILL");
        let lost = finish(lost);
        assert!(lost.status == 200 && !lost.whole && !lost.is_done(), "{:?}: it has no end", fleet.balancer);
        // What comes now is answered, with the same bytes.
        for (prompt, expected) in first.iter().chain(&second).zip(&expected) {
            let reply = completion(&fleet, prompt);
            assert_eq!((reply.status, reply.choices()), (200, expected.choices()), "{:?}", fleet.balancer);
        }
        let direct = |prompt| ask(fleet.replicas[1].address, COMPLETIONS, Some(&long(prompt, false))).texts();
        assert_eq!(finish(kept).texts(), direct(&second[0]), "{:?}: a stream beside it", fleet.balancer);
        // Nothing of this one had come: it is asked again.
        assert_eq!(finish(whole).texts(), direct(&first[1]), "{:?}: an answer on its way", fleet.balancer);
        assert_eq!(fleet.replicas[0].ended(), None);
        fleet.replicas[1].signal("-KILL");
        fleet.replicas[1].ended();
        assert!([502, 503].contains(&completion(&fleet, &first[0]).status), "nobody is left");
        for (index, prompt) in [(0, &first[0]), (1, &second[0])] {
            fleet.start_again(index);
            fleet.wait(|fleet| is_used(fleet, index, prompt));
        }
    }
}

/// Ends an endless loop, also where a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Asks without a pause from two threads while something happens: every answer must come.
fn asking(address: SocketAddr, prompts: [&[String]; 2], happens: impl FnOnce()) {
    let over = AtomicBool::new(false);
    let ask_on = |first: usize| {
        let mut answers = 0;
        for prompt in prompts.concat().iter().cycle().skip(first) {
            if over.load(Ordering::Acquire) {
                break;
            }
            let reply = ask(address, COMPLETIONS, Some(&short(prompt)));
            assert!(reply.status == 200 && reply.whole, "after {answers} answers: {reply:?}");
            answers += 1;
        }
        answers
    };
    thread::scope(|scope| {
        let askers = [0, 3].map(|first| scope.spawn(move || ask_on(first)));
        let until_then = Over(&over);
        happens();
        drop(until_then);
        for asker in askers {
            assert!(asker.join().unwrap() > 3, "it asked meanwhile");
        }
    });
}

#[test]
fn a_replica_that_is_told_to_end_loses_nothing() {
    for mut fleet in fleets(Changes::default()) {
        let [first, second] = prompts(&fleet);
        let address = fleet.address;
        let streams =
            [&first[0], &second[0]].map(|prompt| begin(address, COMPLETIONS, Some(&long(prompt, true))));
        fleet.wait(|fleet| {
            fleet.replicas.iter().all(|replica| replica.metric("offramp_texts_running") == 4.0)
        });
        asking(address, [&first, &second], || {
            fleet.replicas[0].signal("-TERM");
            // Its streams go on while others are refused, and so do those of the other.
            sleep(Duration::from_millis(300));
            assert!(!fleet.replicas[0].has_ended(), "its streams run");
            assert_eq!(fleet.replicas[0].ended(), Some(143));
            sleep(Duration::from_millis(500));
        });
        for (stream, prompt) in streams.into_iter().zip([&first[0], &second[0]]) {
            let direct = ask(fleet.replicas[1].address, COMPLETIONS, Some(&long(prompt, false)));
            assert_eq!(finish(stream).texts(), direct.texts(), "{:?}", fleet.balancer);
        }
        // One that has nothing to do ends before any check has asked it.
        fleet.start_again(0);
        fleet.wait(|fleet| is_used(fleet, 0, &first[0]));
        asking(address, [&first, &second], || {
            for _ in 0..2 {
                fleet.replicas[0].signal("-TERM");
                assert_eq!(fleet.replicas[0].ended(), Some(143));
                fleet.start_again(0);
            }
            sleep(Duration::from_millis(500));
        });
    }
}

/// Texts without end, for a test.
fn endless(streams: bool) -> String {
    json!({ "prompt": "Once", "max_tokens": 400, "n": 100, "ignore_eos": true, "stream": streams })
        .to_string()
}

#[test]
fn the_key_passes_tokens_come_one_by_one_and_who_leaves_frees_his_place() {
    for mut fleet in fleets(Changes::default()) {
        let unknown = finish(begin_with(fleet.address, COMPLETIONS, Some(&short("Once")), ""));
        assert_eq!(unknown.status, 401, "{:?}", fleet.balancer);
        let stream = json!({ "prompt": "Once", "max_tokens": 400, "ignore_eos": true, "stream": true });
        let (replica, reply) = fleet.who_answers(COMPLETIONS, &stream.to_string());
        assert!(reply.pieces >= 20, "{:?} holds tokens back: {} pieces", fleet.balancer, reply.pieces);
        for streams in [true, false] {
            let leaves = begin(fleet.address, COMPLETIONS, Some(&endless(streams)));
            fleet.wait(|fleet| fleet.replicas[replica].metric("offramp_texts_waiting") > 0.0);
            drop(leaves);
            let cancelled = "offramp_texts_total{reason=\"cancelled\"}";
            let before = if streams { 0.0 } else { 50.0 };
            fleet.wait(|fleet| fleet.replicas[replica].metric(cancelled) > before + 50.0);
            fleet.wait(|fleet| fleet.replicas[replica].metric("offramp_texts_running") == 0.0);
        }
    }
}

#[test]
fn a_stream_that_waits_outlives_every_time_limit() {
    let serve = &["--max-texts", "1"];
    for mut fleet in fleets(Changes { serve, configuration: Some(("10m", "2500ms")) }) {
        let stream =
            json!({ "prompt": "Once", "max_tokens": 400, "ignore_eos": true, "stream": true }).to_string();
        let (replica, _) = fleet.who_answers(COMPLETIONS, &stream);
        let ahead = begin(fleet.address, COMPLETIONS, Some(&endless(true)));
        fleet.wait(|fleet| fleet.replicas[replica].metric("offramp_texts_waiting") > 0.0);
        // Behind it, one hears nothing but pings, and the other nothing at all.
        let waits = begin(fleet.address, COMPLETIONS, Some(&stream));
        let silent = ask(fleet.address, COMPLETIONS, Some(&endless(false)));
        assert_eq!(silent.status, 504, "{:?}: an answer that comes whole", fleet.balancer);
        sleep(Duration::from_secs(3));
        drop(ahead);
        let waited = finish(waits);
        assert!(waited.body.starts_with(": ping"), "{:?}: it waited: {:.40}", fleet.balancer, waited.body);
        assert!(!waited.texts()[0].is_empty(), "{:?}", fleet.balancer);
    }
}
