//! Load changes nothing: texts and log-probabilities are those of one text alone, to the bit.

use offramp_engine::{ConfidenceExit, Logprobs, SamplingOptions, Speculate, Workspace};
use offramp_pipeline::{Pipeline, PromptOptions, TextRequest};
use offramp_tests::http::{Reply, post};
use offramp_tests::server::{Server, options, pipeline};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const OPENINGS: [&str; 6] = [
    "Once upon a time, there was a little fox who",
    "Once upon a time, there was a little fox who lived in a forest. Every morning the fox went to the river to \
     drink, and every morning she met a frog",
    "Tom and Mia",
    "",
    "The dragon was sad because 🐉 could not",
    "One day",
];

/// A request, in numbers.
#[derive(Clone, Copy, Debug)]
struct Asked {
    opening: usize,
    exit_layer: usize,
    temperature: f32,
    seed: u64,
    speculate: &'static str,
    max_tokens: usize,
    stream: bool,
}

/// What a text should be.
#[derive(Debug, PartialEq)]
struct Expected {
    text: String,
    logprobs: Vec<f64>,
}

/// Requests of all kinds, by a counter that stirs them.
fn asked(number: usize) -> Asked {
    let stir = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 7;
    Asked {
        opening: stir % OPENINGS.len(),
        exit_layer: [24, 24, 12, 6][stir / 7 % 4],
        temperature: [0.0, 0.8][stir / 31 % 2],
        seed: (stir / 67 % 3) as u64,
        speculate: ["off", "auto", "3:4"][stir / 131 % 3],
        max_tokens: [1, 7, 30, 60][stir / 277 % 4],
        stream: stir / 601 % 2 == 1,
    }
}

fn body(asked: &Asked) -> Value {
    json!({
        "prompt": OPENINGS[asked.opening], "exit_layer": asked.exit_layer, "temperature": asked.temperature,
        "seed": asked.seed, "speculate": asked.speculate, "max_tokens": asked.max_tokens, "stream": asked.stream,
        "logprobs": 2, "top_p": 1.0, "stop": ["the end"],
    })
}

/// The text alone, without a server and without speculation.
fn alone(pipeline: &Pipeline, asked: &Asked) -> Expected {
    let prompt = pipeline.encode(OPENINGS[asked.opening], PromptOptions::default()).unwrap();
    let sampling = SamplingOptions { temperature: asked.temperature, seed: asked.seed, ..Default::default() };
    let request = TextRequest {
        prompt: &prompt,
        max_new_tokens: asked.max_tokens,
        exit_layer: asked.exit_layer,
        confidence: None,
        sampling,
        stop: &["the end".to_owned()],
        logprobs: Some(2),
    };
    let session = pipeline.session(prompt.len(), asked.max_tokens).unwrap();
    let mut generation = pipeline.begin(session, &request, Speculate::Off.speculation(None)).unwrap();
    generation.run(&mut Workspace::new(), &mut |_| ControlFlow::Continue(())).unwrap();
    let found = generation.into_parts().0;
    let logprobs = found.logprobs.iter().filter_map(|found: &Logprobs| found.logprob).collect();
    Expected { text: found.text, logprobs }
}

/// What a reply says.
fn told(reply: &Reply, stream: bool) -> Expected {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let chunks = if stream { reply.chunks() } else { vec![reply.json()] };
    let mut told = Expected { text: String::new(), logprobs: Vec::new() };
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        told.text.push_str(choice["text"].as_str().unwrap());
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        told.logprobs.extend(logprobs.iter().map(|logprob| logprob.as_f64().unwrap()));
    }
    told
}

#[test]
fn texts_and_logprobs_are_those_of_one_text_alone() {
    const REQUESTS: usize = 150;
    let pipeline = pipeline();
    let server = Server::start(None, options());
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let client = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= REQUESTS {
                return;
            }
            let asked = asked(number);
            let found = told(&post(server.address, "/v1/completions", &body(&asked)), asked.stream);
            let expected = alone(&pipeline, &asked);
            if found != expected {
                wrong.lock().unwrap().push(format!("{asked:?}: {found:?} instead of {expected:?}"));
            }
        }
    };
    thread::scope(|scope| (0..12).for_each(|_| drop(scope.spawn(client))));
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {REQUESTS} differ: {}", wrong.len(), wrong[0]);
    assert!(server.metric("offramp_cached_tokens_total") > 0.0, "prefixes were shared");
    assert!(server.metric("offramp_accepted_tokens_total") > 0.0, "drafts were accepted");
}

#[test]
fn several_prompts_and_choices_are_as_many_texts() {
    let (pipeline, server) = (pipeline(), Server::start(None, options()));
    let many = json!({ "prompt": [OPENINGS[0], OPENINGS[2]], "n": 2, "temperature": 0.8, "seed": 5, "top_p": 1.0,
        "max_tokens": 30, "logprobs": 0, "stop": ["the end"] });
    let reply = post(server.address, "/v1/completions", &many).json();
    for (index, choice) in reply["choices"].as_array().unwrap().iter().enumerate() {
        let asked = Asked {
            opening: [0, 2][index / 2],
            exit_layer: 24,
            temperature: 0.8,
            seed: 5 + index as u64 % 2,
            speculate: "off",
            max_tokens: 30,
            stream: false,
        };
        assert_eq!(choice["text"].as_str().unwrap(), alone(&pipeline, &asked).text, "choice {index}");
        assert_eq!(choice["index"], index);
    }
    assert_eq!(reply["choices"].as_array().unwrap().len(), 4);
    let usage = &reply["usage"];
    let tokens = |choice: &Value| choice["logprobs"]["tokens"].as_array().unwrap().len() as u64;
    let tokens: u64 = reply["choices"].as_array().unwrap().iter().map(tokens).sum();
    assert_eq!(usage["completion_tokens"], tokens);
    assert_eq!(usage["total_tokens"].as_u64(), Some(tokens + usage["prompt_tokens"].as_u64().unwrap()));
}

#[test]
fn depths_and_origins_are_told_of_every_token() {
    let calibrate = |_| Ok(ConfidenceExit { exits: vec![8, 16], threshold: 1.0 });
    let options =
        || offramp_serve::ServeOptions { calibrate: Some(std::sync::Arc::new(calibrate)), ..options() };
    let server = Server::start(None, options());
    let ask = |more: Value| {
        let mut body =
            json!({ "prompt": OPENINGS[0], "max_tokens": 40, "temperature": 0, "return_depths": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(server.address, "/v1/completions", &body).json()
    };
    let depths = |reply: &Value| -> Vec<(u64, String)> {
        let all = reply["choices"][0]["depths"].as_array().unwrap().iter();
        all.map(|one| (one["depth"].as_u64().unwrap(), one["origin"].as_str().unwrap().to_owned())).collect()
    };
    let plain = ask(json!({ "exit_layer": 12, "speculate": "off" }));
    assert_eq!(depths(&plain), vec![(12, "chosen".to_owned()); 40]);
    assert_eq!(plain["model"], "tinystories-24");
    let named = ask(json!({ "model": "tinystories-24@12" }));
    assert_eq!(named["choices"], plain["choices"], "the model's name may say the exit");
    let drafted = depths(&ask(json!({ "speculate": "6:4" })));
    assert!(drafted.iter().all(|(depth, _)| *depth == 24));
    assert!(
        ["accepted", "corrected", "chosen"].iter().all(|o| drafted.iter().any(|(_, origin)| origin == o))
    );
    let left = ask(json!({ "agreement": 0.9 }));
    let found = depths(&left);
    assert!(
        found.iter().any(|(depth, _)| *depth == 8)
            && found.iter().all(|(depth, _)| [8, 16, 24].contains(depth))
    );
    let mean = found.iter().map(|(depth, _)| *depth as f64).sum::<f64>() / found.len() as f64;
    assert!((left["timings"]["mean_depth"].as_f64().unwrap() - mean).abs() < 1e-9);
}

#[test]
fn an_agreement_is_calibrated_once_even_if_its_client_leaves() {
    let calibrations = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&calibrations);
    let calibrate = move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        thread::sleep(std::time::Duration::from_millis(300));
        Ok(ConfidenceExit { exits: vec![16], threshold: 2.0 })
    };
    let calibrate: offramp_serve::Calibrate = std::sync::Arc::new(calibrate);
    let server = Server::start(None, offramp_serve::ServeOptions { calibrate: Some(calibrate), ..options() });
    let body = json!({ "prompt": "a", "max_tokens": 1, "agreement": 0.925 });
    for _ in 0..6 {
        drop(offramp_tests::http::begin(
            server.address,
            "POST /v1/completions",
            &[],
            body.to_string().as_bytes(),
        ));
        thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(post(server.address, "/v1/completions", &body).status, 200);
    assert_eq!(calibrations.load(Ordering::Relaxed), 1);
}
