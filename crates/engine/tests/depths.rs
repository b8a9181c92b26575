//! What all exits say of a whole text is what a session at each of them says, bit for bit.

use offramp_engine::{Error, Session, Workspace, hidden_states, logits_at_exits};
use offramp_model::{Batch, CacheFormat, Config, Format, Formats, Llama, Scratch};
use std::path::Path;
use std::sync::Arc;

const LAYERS: usize = 5;
const VOCAB: usize = 61;
const HIDDEN: usize = 48;
const CONFIG: &str = r#"{
    "model_type": "llama", "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 5,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 61,
    "max_position_embeddings": 320, "rms_norm_eps": 1e-5
}"#;

fn model(format: Format) -> Arc<Llama> {
    let config = Config::from_json(CONFIG, Path::new("config.json")).expect("a valid config");
    let formats = Formats { kv_cache: CacheFormat::F16, ..Formats::all(format) };
    Arc::new(Llama::random(config, 3, &formats).expect("a small model"))
}

fn tokens(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i * 7 + i * 3 + 2) % VOCAB as u32).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// More tokens than go through the layers at once, and fewer.
const LENGTHS: [usize; 3] = [1, 9, 300];

#[test]
fn logits_at_exits_are_those_of_sessions() {
    for format in [Format::F32, Format::Int8] {
        let model = model(format);
        for len in LENGTHS {
            let tokens = tokens(len);
            let exits = [5, 2, 5, 1];
            let mut done = Vec::new();
            let found =
                logits_at_exits(&model, &tokens, &exits, &mut |tokens| done.push(tokens)).expect("memory");
            assert_eq!((found.len(), done.last()), (exits.len() * len * VOCAB, Some(&len)));
            for (found, exit_layer) in found.chunks(len * VOCAB).zip(exits) {
                let mut session = Session::new(&model, len).expect("memory");
                session.set_exit_layer(exit_layer).expect("an exit");
                let mut workspace = Workspace::new();
                let expected = session.feed_each(&tokens, &mut workspace).expect("a text");
                assert_eq!(bits(found), bits(expected), "{format:?}, {len} tokens, exit {exit_layer}");
            }
        }
    }
}

#[test]
fn hidden_states_are_those_between_layers() {
    let model = model(Format::F32);
    for len in LENGTHS {
        let tokens = tokens(len);
        let found = hidden_states(&model, &tokens, &mut |_| ()).expect("memory");
        assert_eq!(found.len(), (LAYERS + 1) * len * HIDDEN);
        let (mut hidden, mut cache, mut scratch) = (model.new_hidden(), model.new_cache(len), Scratch::new());
        model.embed(&tokens, &mut hidden).expect("known tokens");
        for (depth, found) in found.chunks(len * HIDDEN).enumerate() {
            if depth > 0 {
                let mut batch = Batch::one(&mut cache);
                model.forward(depth - 1..depth, &mut hidden, &mut batch, &mut scratch).expect("memory");
            }
            let expected = match depth {
                LAYERS => model.final_norm(&hidden, 0..len, &mut scratch),
                _ => hidden.as_slice(),
            };
            assert_eq!(bits(found), bits(expected), "{len} tokens, depth {depth}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let model = model(Format::F32);
    let read = |tokens: &[u32], exits: &[usize]| logits_at_exits(&model, tokens, exits, &mut |_| ());
    assert!(matches!(read(&[], &[1]), Err(Error::NoTokens)));
    assert!(matches!(read(&tokens(321), &[1]), Err(Error::ContextFull { tokens: 321, context: 320 })));
    assert!(matches!(read(&[61], &[1]), Err(Error::Model(offramp_model::Error::UnknownToken { .. }))));
    assert!(matches!(read(&[1], &[6]), Err(Error::Model(offramp_model::Error::ExitLayer { .. }))));
    assert!(read(&[1], &[]).expect("nothing is asked").is_empty());
}
