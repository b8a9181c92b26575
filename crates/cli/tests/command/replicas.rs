//! What docs/server.md promises of several machines, with HAProxy and nginx as they are. `crates/serve/test`
//! names them and runs these; without `OFFRAMP_HAPROXY` and `OFFRAMP_NGINX` they are skipped with a line.

use crate::client::{Reply, ask, begin, begin_with, finish};
use crate::conversations::{
    COMPLETIONS, Content, Request, chat_with_a_system_message, chat_without, ids, long_body, prompt,
    response, response_to_a_text, with_a_key, with_a_long_body,
};
use crate::fleet::{Changes, Fleet, Replica, fleets};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

const CONTENTS: [Content; 2] = [Content::Text, Content::Parts];

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

/// Holds requests that begin alike to one replica, and others to both; what came of those of some beginnings.
fn stays(fleet: &Fleet, what: &str, requests: impl Fn(usize) -> [Request; 3]) -> Vec<[Reply; 3]> {
    let answers = |(path, body): &Request| fleet.who_answers(path, body);
    let (mut replies, mut answered) = (Vec::new(), [0; 2]);
    for number in 0..16 {
        let [first, second, third] = requests(number);
        let (replica, one) = answers(&first);
        answered[replica] += 1;
        if number < 4 {
            let [(other, two), (another, three)] = [answers(&second), answers(&third)];
            assert_eq!([other, another], [replica; 2], "{:?}: {what} {number}", fleet.balancer);
            replies.push([one, two, three]);
        }
    }
    assert!(!answered.contains(&0), "{:?} spreads no {what}: {answered:?}", fleet.balancer);
    replies
}

#[test]
fn a_conversation_stays_on_one_replica_and_many_are_spread() {
    type Asks = fn(usize, Content) -> [Request; 3];
    let ways: [(&str, Asks); 3] = [
        ("chat with a system message", chat_with_a_system_message),
        ("chat without one", chat_without),
        ("response", response),
    ];
    for fleet in fleets(Changes::default()) {
        for ((what, requests), content) in
            ways.into_iter().flat_map(|way| CONTENTS.map(|content| (way, content)))
        {
            for [_, _, third] in stays(&fleet, what, |number| requests(number, content)) {
                let usage = &third.json()["usage"];
                let details = ["prompt_tokens_details", "input_tokens_details"].map(|name| &usage[name]);
                let cached = details.iter().find_map(|details| details["cached_tokens"].as_u64());
                assert!(cached > Some(0), "{what}, {content:?}: its beginning was kept: {usage}");
            }
        }
    }
}

#[test]
fn what_begins_alike_goes_to_one_replica_and_what_is_long_is_answered() {
    for fleet in fleets(Changes::default()) {
        stays(&fleet, "response to a text", response_to_a_text);
        stays(&fleet, "prompt", prompt);
        stays(&fleet, "prompt of ids", ids);
        stays(&fleet, "key", with_a_key);
        stays(&fleet, "long body", long_body);
        // Longer than what is looked at, and than what is kept to be repeated.
        for length in [200 << 10, 7 << 20] {
            fleet.who_answers(COMPLETIONS, &with_a_long_body("Once", length));
        }
    }
}

#[test]
fn answers_are_those_of_every_replica_whatever_the_load() {
    for fleet in fleets(Changes::default()) {
        let prompts: Vec<String> =
            (0..16).map(|number| format!("Story {number}. Once upon a time")).collect();
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
                    for index in (first..first + 16).map(|index| index % 16) {
                        let reply = completion(fleet, &prompts[index]);
                        assert_eq!(reply.choices(), expected[index], "{:?}", fleet.balancer);
                    }
                });
            }
        });
        let texts = fleet.replicas.each_ref().map(|replica| replica.metric("offramp_texts_total"));
        assert!(texts.iter().all(|count| *count > 16.0), "both took part: {texts:?}");
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
    // More time than it needs, so that it ends when it has finished.
    let serve = &["--grace", "200"];
    for mut fleet in fleets(Changes { serve, ..Changes::default() }) {
        let [first, second] = prompts(&fleet);
        let address = fleet.address;
        let stream = |body: &str| begin(address, COMPLETIONS, Some(body));
        let streams = [&first[0], &second[0]].map(|prompt| stream(&long(prompt, true)));
        let running = |replica: &Replica| replica.metric("offramp_texts_running");
        fleet.wait(|fleet| fleet.replicas.iter().all(|replica| running(replica) == 4.0));
        // Keeps the replica from its end until everybody knows of it.
        let leaves = stream(&endless(&first[0], true));
        fleet.wait(|fleet| running(&fleet.replicas[0]) > 4.0);
        let too_long_to_repeat = with_a_long_body(&first[0], 200 << 10);
        asking(address, [&first, &second], || {
            fleet.replicas[0].signal("-TERM");
            fleet.wait(|fleet| ask(fleet.replicas[0].address, "/health/ready", None).status == 503);
            fleet.wait(|_| ask(address, COMPLETIONS, Some(&too_long_to_repeat)).status == 200);
            assert!(!fleet.replicas[0].has_ended(), "its streams run");
            drop(leaves);
            assert_eq!(fleet.replicas[0].ended(), Some(143));
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
fn endless(prompt: &str, streams: bool) -> String {
    json!({ "prompt": prompt, "max_tokens": 400, "n": 100, "ignore_eos": true, "stream": streams })
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
            let leaves = begin(fleet.address, COMPLETIONS, Some(&endless("Once", streams)));
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
        let ahead = begin(fleet.address, COMPLETIONS, Some(&endless("Once", true)));
        fleet.wait(|fleet| fleet.replicas[replica].metric("offramp_texts_waiting") > 0.0);
        // Behind it, one hears nothing but pings, and the other nothing at all.
        let waits = begin(fleet.address, COMPLETIONS, Some(&stream));
        let silent = ask(fleet.address, COMPLETIONS, Some(&endless("Once", false)));
        assert_eq!(silent.status, 504, "{:?}: an answer that comes whole", fleet.balancer);
        sleep(Duration::from_secs(3));
        drop(ahead);
        let waited = finish(waits);
        assert!(waited.body.starts_with(": ping"), "{:?}: it waited: {:.40}", fleet.balancer, waited.body);
        assert!(!waited.texts()[0].is_empty(), "{:?}", fleet.balancer);
    }
}
