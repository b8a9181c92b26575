//! What every exit would have said is what the model says when it is left there.

use offramp_engine::{Session, Workspace, argmax, score};
use offramp_tests::http::post;
use offramp_tests::server::{Server, options, pipeline};
use serde_json::json;

#[test]
fn every_exit_says_what_the_model_says_there() {
    let (pipeline, server) = (pipeline(), Server::start(None, options()));
    let ids = pipeline
        .encode("Once upon a time there was a little dog named Max who liked to", Default::default())
        .unwrap();
    let reply = post(server.address, "/v1/exits", &json!({ "prompt": ids, "top_k": 3 })).json();
    let positions = reply["positions"].as_array().unwrap();
    assert_eq!(positions.len(), ids.len());
    let mut first_choices = vec![Vec::new(); ids.len()];
    for exit_layer in 1..=24 {
        let mut session = Session::new(pipeline.model(), ids.len()).unwrap();
        session.set_exit_layer(exit_layer).unwrap();
        let mut workspace = Workspace::new();
        let mut logits = session.feed_each(&ids, &mut workspace).unwrap().to_vec();
        let vocab = logits.len() / ids.len();
        for (choices, logits) in first_choices.iter_mut().zip(logits.chunks_exact(vocab)) {
            choices.push(argmax(logits));
        }
        logits.truncate((ids.len() - 1) * vocab);
        for (index, score) in score(&mut logits, &ids[1..]).into_iter().enumerate() {
            let exit = &positions[index]["exits"][exit_layer - 1];
            assert_eq!(exit["exit_layer"], exit_layer);
            assert_eq!(
                exit["logprob"].as_f64(),
                Some(-score.nats),
                "exit {exit_layer}, position {}",
                index + 1
            );
        }
    }
    for (index, (position, choices)) in positions.iter().zip(&first_choices).enumerate() {
        let told: Vec<u64> = position["exits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|exit| exit["top"][0]["token_id"].as_u64().unwrap())
            .collect();
        assert_eq!(told, choices.iter().map(|&id| u64::from(id)).collect::<Vec<_>>());
        assert_eq!(position["token_id"].as_u64(), ids.get(index + 1).map(|&id| u64::from(id)));
        let settled = position["settled_at"].as_u64().unwrap() as usize;
        assert!(choices[settled - 1..].iter().all(|choice| choice == &choices[23]));
        assert!(settled == 1 || choices[settled - 2] != choices[23]);
    }
    let some = json!({ "prompt": ids, "top_k": 3, "exits": [12, 24], "from": 9 });
    let some = post(server.address, "/v1/exits", &some).json();
    assert_eq!(some["exit_layers"], json!([12, 24]));
    for (some, all) in some["positions"].as_array().unwrap().iter().zip(&positions[8..]) {
        assert_eq!((&some["exits"][0], &some["exits"][1]), (&all["exits"][11], &all["exits"][23]));
    }
    for (body, says) in [
        (json!({ "prompt": "a", "exits": [0] }), "exit"),
        (json!({ "prompt": "a", "exits": [] }), "exits"),
        (json!({ "prompt": "a", "top_k": 0 }), "top_k"),
        (json!({ "prompt": vec![5; 300] }), "at most 256"),
        (json!({ "prompt": vec![5; 600] }), "600"),
    ] {
        let reply = post(server.address, "/v1/exits", &body);
        assert_eq!(reply.status, 400);
        assert!(reply.error().contains(says), "{}", reply.error());
    }
}
