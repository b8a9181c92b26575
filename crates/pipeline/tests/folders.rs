//! Prompts, ends of text and streamed text, with tokenizers of every kind and a small model. The tokenizers
//! and the ids are those of `tests/python/make_prompt_fixtures.py`.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_engine::{Draft, SamplingOptions, Speculation, Workspace};
use offramp_model::{Config, Formats, checkpoint};
use offramp_pipeline::{
    Chat, Finish, ModelSource, Piece, Pipeline, PromptOptions, TextRequest, UserSampling,
};
use serde_json::{Value, json};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const LAYERS: usize = 4;

fn fixture(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/prompts").join(kind)
}

/// A model folder with this kind of tokenizer; `config` and `generation` are merged into its files.
fn folder(kind: &str, config: Value, generation: Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "vocab_size": 600, "max_position_embeddings": 96,
        "bos_token_id": null, "eos_token_id": null,
    });
    merge(&mut keys, &config);
    let config = Config::from_json(&keys.to_string(), Path::new("config.json")).unwrap();
    let mut state = 11u32;
    let mut next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    checkpoint::save(folder.path(), &config, &mut |spec| (0..spec.len()).map(&mut next).collect()).unwrap();
    fs::write(folder.path().join("generation_config.json"), generation.to_string()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture(kind).join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn merge(keys: &mut Value, more: &Value) {
    let more = more.as_object().unwrap().clone();
    keys.as_object_mut().unwrap().extend(more);
}

fn open(folder: &TempDir) -> Pipeline {
    ModelSource::resolve(folder.path()).unwrap().open(&Formats::default()).unwrap()
}

fn encode(pipeline: &Pipeline, prompt: &str) -> Vec<u32> {
    pipeline.encode(prompt, PromptOptions::default()).unwrap()
}

#[test]
fn an_empty_prompt_begins_as_texts_do() {
    // The post-processor's token, that of config.json, and the end of text.
    let llama3 = open(&folder("llama-3", json!({}), json!({})));
    assert_eq!(encode(&llama3, ""), [llama3.tokenizer().token_id("<|begin_of_text|>").unwrap()]);
    let chatml = open(&folder("chatml", json!({"bos_token_id": 5}), json!({})));
    assert_eq!(encode(&chatml, ""), [5]);
    let gpt2 = open(&folder("gpt-2", json!({}), json!({})));
    assert_eq!(encode(&gpt2, ""), [gpt2.tokenizer().token_id("<|endoftext|>").unwrap()]);
    let absent = open(&folder("gpt-2", json!({"bos_token_id": 590}), json!({})));
    assert_eq!(encode(&absent, ""), encode(&gpt2, ""), "the tokenizer has no such token");
}

#[test]
fn a_text_ends_where_either_file_says() {
    let ends = |kind: &str, config, generation| {
        let pipeline = open(&folder(kind, config, generation));
        (pipeline.stop_tokens().to_vec(), pipeline.tokenizer().end_of_text())
    };
    let of = |kind: &str, token: &str| {
        open(&folder(kind, json!({}), json!({}))).tokenizer().token_id(token).unwrap()
    };
    let [eot, end] = ["<|eot_id|>", "<|end_of_text|>"].map(|token| of("llama-3", token));
    let (stops, separator) =
        ends("llama-3", json!({"eos_token_id": end}), json!({"eos_token_id": [end, eot]}));
    assert_eq!((stops, separator), (vec![end, eot], Some(end)));
    let (stops, separator) = ends("llama-3", json!({"eos_token_id": [eot]}), json!({}));
    assert_eq!(
        (stops, separator),
        (vec![eot], Some(eot)),
        "a known name that does not end this model's texts"
    );
    let (stops, separator) = ends("llama-3", json!({}), json!({}));
    assert_eq!((stops, separator), (vec![end], Some(end)), "neither file names one");

    // None of their tokens has a known name.
    let deepseek = of("deepseek", "<｜end▁of▁sentence｜>");
    assert_eq!(
        ends("deepseek", json!({"eos_token_id": deepseek}), json!({})),
        (vec![deepseek], Some(deepseek))
    );
    assert_eq!(
        ends("deepseek", json!({}), json!({})),
        (vec![deepseek], Some(deepseek)),
        "tokenizer_config.json"
    );
    let im_end = of("chatml", "<|im_end|>");
    assert_eq!(ends("chatml", json!({}), json!({"eos_token_id": im_end})), (vec![im_end], Some(im_end)));
    let (stops, separator) = ends("chatml", json!({"eos_token_id": [599, im_end]}), json!({}));
    assert_eq!((stops, separator), (vec![599, im_end], Some(im_end)), "599 is no token of the tokenizer's");
}

fn request<'a>(prompt: &'a [u32], stop: &'a [String]) -> TextRequest<'a> {
    let sampling = SamplingOptions { temperature: 1.0, seed: 3, ..SamplingOptions::default() };
    TextRequest {
        prompt,
        max_new_tokens: 48,
        exit_layer: LAYERS,
        confidence: None,
        sampling,
        stop,
        logprobs: None,
    }
}

/// Generates a text, and checks that its pieces are all of it.
fn generate(
    pipeline: &Pipeline,
    request: TextRequest<'_>,
    speculation: Speculation,
) -> (String, Finish, Vec<u32>) {
    let session = pipeline.session(request.prompt.len(), request.max_new_tokens).unwrap();
    let mut generation = pipeline.begin(session, &request, speculation).unwrap();
    let mut shown = String::new();
    let mut show = |piece: Piece| {
        assert!(!piece.text.is_empty());
        shown.push_str(&piece.text);
        ControlFlow::Continue(())
    };
    generation.run(&mut Workspace::new(), &mut show).unwrap();
    let (found, _, _) = generation.into_parts();
    assert_eq!(shown, found.text);
    (found.text, found.finish, found.tokens)
}

#[test]
fn the_text_is_what_the_prompt_lacks_of_the_whole() {
    for kind in ["llama-2", "metaspace", "llama-3", "gpt-2"] {
        let pipeline = open(&folder(kind, json!({"eos_token_id": 599}), json!({})));
        for prompt in ["Once upon a time", "tea and 🐢", " the end "] {
            let ids = encode(&pipeline, prompt);
            let (text, _, tokens) = generate(&pipeline, request(&ids, &[]), Speculation::off());
            let decode = |ids: &[u32]| pipeline.tokenizer().decode(ids).unwrap();
            let (known, whole) = (decode(&ids), decode(&[ids.clone(), tokens].concat()));
            // A further byte may change the last character of a prompt.
            let same = known.chars().zip(whole.chars()).take_while(|(a, b)| a == b);
            let same: usize = same.map(|(a, _)| a.len_utf8()).sum();
            assert_eq!(text, whole[same..], "{kind}: {prompt}");
            assert!(same == known.len() || prompt.ends_with('🐢'), "{kind}: {prompt}");
        }
    }
}

#[test]
fn a_stop_string_ends_the_text_before_it_however_it_is_drafted() {
    for kind in ["llama-2", "llama-3"] {
        let pipeline = open(&folder(kind, json!({"eos_token_id": 599}), json!({})));
        let ids = encode(&pipeline, "Once upon a time");
        let (whole, _, _) = generate(&pipeline, request(&ids, &[]), Speculation::off());
        let letters: Vec<char> = whole.chars().collect();
        for (from, to) in [(3, 4), (5, 12), (letters.len() - 3, letters.len())] {
            let stop = [letters[from..to].iter().collect::<String>()];
            let place = whole.find(&stop[0]).unwrap();
            for draft in [None, Some(Draft { exit_layer: 2, num_speculations: 3 })] {
                let speculation = draft.map_or(Speculation::off(), Speculation::fixed);
                let (text, finish, _) = generate(&pipeline, request(&ids, &stop), speculation);
                assert_eq!((text.as_str(), &finish), (&whole[..place], &Finish::StopString(stop[0].clone())));
            }
        }
        let never = ["\u{1}never".to_owned(), whole[whole.len() - 1..].to_owned() + "\u{1}"];
        let (text, finish, _) = generate(&pipeline, request(&ids, &never), Speculation::off());
        assert_eq!((text, finish), (whole, Finish::Length), "what was held back in vain is shown");
    }
}

#[test]
fn what_a_session_holds_of_a_prompt_is_not_run_again() {
    let pipeline = open(&folder("llama-3", json!({}), json!({})));
    let first = encode(&pipeline, "Once upon a time there was a snail");
    let second = encode(&pipeline, "Once upon a time there was a fox");
    let alone: Vec<_> =
        [&first, &second].map(|ids| generate(&pipeline, request(ids, &[]), Speculation::off())).into();
    let (mut session, mut workspace) = (pipeline.session(90, 0).unwrap(), Workspace::new());
    for (ids, (text, _, _)) in
        [&first, &second, &second, &first].into_iter().zip(alone.iter().chain(alone.iter().rev()))
    {
        let mut generation = pipeline.begin(session, &request(ids, &[]), Speculation::off()).unwrap();
        generation.run(&mut workspace, &mut |_| ControlFlow::Continue(())).unwrap();
        let (found, used, _) = generation.into_parts();
        assert_eq!(&found.text, text);
        session = used;
    }
    let mut again = pipeline.begin(session, &request(&first, &[]), Speculation::off()).unwrap();
    again.run(&mut workspace, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(again.into_parts().0.statistics.prompt_tokens, 1, "something has to be run, and no more is");
}

#[test]
fn a_request_is_checked_before_anything_is_computed() {
    let pipeline = open(&folder("llama-3", json!({}), json!({})));
    let ids = encode(&pipeline, "Once");
    let long = vec![1; 97];
    let stops = [String::new()];
    let base = request(&ids, &[]);
    let sampling = base.sampling;
    let bad: [(TextRequest<'_>, Speculation, &str); 7] = [
        (TextRequest { exit_layer: 9, ..base.clone() }, Speculation::off(), "exit"),
        (TextRequest { prompt: &long, ..base.clone() }, Speculation::off(), "97 tokens do not fit"),
        (TextRequest { prompt: &[700], ..base.clone() }, Speculation::off(), "700"),
        (TextRequest { stop: &stops, ..base.clone() }, Speculation::off(), "stop string"),
        (
            TextRequest { sampling: SamplingOptions { temperature: -1.0, ..sampling }, ..base.clone() },
            Speculation::off(),
            "temperature",
        ),
        (
            TextRequest { sampling: SamplingOptions { top_p: 0.0, ..sampling }, ..base.clone() },
            Speculation::off(),
            "top_p",
        ),
        (base.clone(), Speculation::fixed(Draft { exit_layer: 9, num_speculations: 2 }), "exit"),
    ];
    for (request, speculation, word) in bad {
        let session = pipeline.session(request.prompt.len(), request.max_new_tokens).unwrap();
        let message = pipeline.begin(session, &request, speculation).unwrap_err().to_string();
        assert!(message.contains(word) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn sampling_is_the_folders() {
    let generation = json!({"do_sample": true, "temperature": 0.7, "top_k": 20});
    let pipeline = open(&folder("gpt-2", json!({}), generation));
    let sampling = pipeline.sampling(&UserSampling { temperature: Some(0.2), ..UserSampling::default() });
    assert_eq!((sampling.options.temperature, sampling.options.top_k), (0.2, 20));
    let broken = folder("gpt-2", json!({}), json!({"top_p": 7}));
    let error =
        ModelSource::resolve(broken.path()).unwrap().open(&Formats::default()).unwrap_err().to_string();
    assert!(error.contains("top_p is 7") && error.contains("generation_config.json"), "{error}");
}

#[test]
fn the_templates_end_ends_an_answer() {
    let of = |token: &str| open(&folder("chatml", json!({}), json!({}))).tokenizer().token_id(token).unwrap();
    let [text, turn] = ["<|im_start|>", "<|im_end|>"].map(of);
    let place = folder("chatml", json!({"eos_token_id": text}), json!({}));
    fs::write(place.path().join("tokenizer_config.json"), r#"{"eos_token": "<|im_end|>"}"#).unwrap();
    fs::write(place.path().join("chat_template.jinja"), "{{ eos_token }}{{ messages[-1].content }}").unwrap();
    let source = ModelSource::resolve(place.path()).unwrap();
    let mut pipeline = source.open(&Formats::default()).unwrap();
    assert_eq!(pipeline.stop_tokens(), [text]);
    let mut chat = Chat::new(source.chat_template().unwrap(), None, &mut pipeline);
    assert_eq!(pipeline.stop_tokens(), [text, turn]);
    chat.ask("<|im_end|>");
    assert_eq!(chat.encode(&pipeline).unwrap(), [turn, turn], "special tokens are read, and none is added");
    assert_eq!(pipeline.generate_options(1, SamplingOptions::default()).stop_tokens, [text, turn]);
}

#[test]
fn a_session_grows_with_its_conversation() {
    let pipeline = open(&folder("gpt-2", json!({"max_position_embeddings": 4096}), json!({})));
    let session = pipeline.longer_session(None, 10, 10).unwrap();
    let capacity = session.capacity();
    assert!((200..4096).contains(&capacity), "room for some turns, and not for all that fits: {capacity}");
    let same = pipeline.longer_session(Some(session), capacity - 8, 8).unwrap();
    assert_eq!(same.capacity(), capacity);
    let longer = pipeline.longer_session(Some(same), capacity, 10).unwrap();
    assert!(longer.capacity() >= capacity + 10);
    assert_eq!(pipeline.longer_session(Some(longer), 4000, 1000).unwrap().capacity(), 4096, "the context");
}
