//! Tensors by the names that `transformers` takes for theirs; what a model does without.

use super::*;

const NORM: &str = "model.norm.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// The same tensors by other names.
fn renamed(tensors: &[Tensor], name: impl Fn(&str) -> String) -> Vec<Tensor> {
    tensors.iter().map(|tensor| Tensor { name: name(&tensor.name), ..tensor.clone() }).collect()
}

/// The embedding's values as the head's.
fn as_head(config: &Config) -> Tensor {
    let embedding = encoded(&config.tensors()[0], "F32");
    Tensor { name: "lm_head.weight".to_owned(), ..embedding }
}

#[test]
fn names_with_their_prefix_without_and_twice_are_one() {
    for tied in [false, true] {
        let config = config(tied);
        let good = model(&config, "F32");
        let bare = |name: &str| name.strip_prefix("model.").unwrap_or(name).to_owned();
        let one = |name: &str| if name == NORM { bare(name) } else { name.to_owned() };
        let ways: [&dyn Fn(&str) -> String; 3] = [&bare, &|name| format!("model.{name}"), &one];
        for way in ways {
            assert_holds(&Folder::with(&renamed(&good, way)).open(&config).unwrap(), &config, true);
        }
        let norm = good.iter().find(|tensor| tensor.name == NORM).unwrap();
        let twice = [&good[..], &renamed(std::slice::from_ref(norm), bare)].concat();
        Folder::with(&twice).refuses(&config, &["model.safetensors", NORM, "twice"]);
        Folder::with(&renamed(&good, |name| format!("module.{name}")))
            .refuses(&config, &["no tensor", "module.model.", "not what wraps it"]);
    }
}

#[test]
fn a_tied_model_holds_its_embedding_its_head_or_both() {
    let (tied, untied) = (config(true), config(false));
    let good = model(&tied, "F32");
    let head = as_head(&tied);
    assert_holds(&Folder::with(&good).open(&tied).unwrap(), &tied, true);
    assert_holds(
        &Folder::with(&[&good[..], std::slice::from_ref(&head)].concat()).open(&tied).unwrap(),
        &tied,
        true,
    );
    let only: Vec<_> =
        good.iter().filter(|tensor| tensor.name != EMBEDDING).cloned().chain([head.clone()]).collect();
    assert_holds(&Folder::with(&only).open(&tied).unwrap(), &tied, true);
    let bare = renamed(&only, |name| name.strip_prefix("model.").unwrap_or(name).to_owned());
    assert_holds(&Folder::with(&bare).open(&tied).unwrap(), &tied, true);
    Folder::with(&good)
        .refuses(&untied, &["model.safetensors", "lm_head.weight", "[5, 4]", "tie_word_embeddings"]);
    Folder::with(&only).refuses(&untied, &["model.safetensors", EMBEDDING]);
}

/// Generations of transformers differ in what they make of it.
#[test]
fn a_tied_head_that_is_another_is_refused() {
    let tied = config(true);
    for (at, size) in [(0, 80), (79, 80)] {
        let mut head = as_head(&tied);
        assert_eq!(head.bytes.len(), size);
        head.bytes[at] ^= 1;
        let folder = Folder::with(&[&model(&tied, "F32")[..], &[head]].concat());
        folder.refuses(&tied, &["model.safetensors", "lm_head.weight is not the token embedding", "false"]);
    }
}

#[test]
fn rotary_buffers_are_ignored_wherever_they_lie() {
    let config = config(false);
    let first = "model-00001-of-00002.safetensors";
    for name in [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "layers.0.self_attn.rotary_emb.cos_cached",
        "model.rotary_emb.inv_freq",
        "rotary_emb.inv_freq",
    ] {
        let buffer = tensor(name, "F32", &[1], vec![0; 4]);
        let single = [&model(&config, "F16")[..], std::slice::from_ref(&buffer)].concat();
        assert_holds(&Folder::with(&single).open(&config).unwrap(), &config, false);
        let tensors = model(&config, "BF16");
        let held = [&tensors[..tensors.len().div_ceil(2)], &[buffer]].concat();
        // In a shard and in the index, in one of the two, placed in the shard that does not hold it.
        let folder = sharded(&config, &|_| ());
        folder.write(first, &file(&held, 0));
        assert_holds(&folder.open(&config).unwrap(), &config, false);
        for place in [first, "model-00002-of-00002.safetensors"] {
            let folder = sharded(&config, &|index| index["weight_map"][name] = json!(place));
            assert_holds(&folder.open(&config).unwrap(), &config, false);
            folder.write(first, &file(&held, 0));
            assert_holds(&folder.open(&config).unwrap(), &config, false);
        }
    }
}

/// As is a tied head that the index does not speak of.
#[test]
fn a_tied_head_is_ignored_in_a_shard() {
    let tied = config(true);
    let tensors = model(&tied, "BF16");
    let head = Tensor { name: "lm_head.weight".to_owned(), ..tensors[0].clone() };
    let folder = sharded(&tied, &|_| ());
    let held = [&tensors[..tensors.len().div_ceil(2)], &[head]].concat();
    folder.write("model-00001-of-00002.safetensors", &file(&held, 0));
    assert_holds(&folder.open(&tied).unwrap(), &tied, false);
}

#[test]
fn shards_may_lie_in_folders_of_the_folder() {
    let config = config(false);
    let first = "model-00001-of-00002.safetensors";
    for prefix in ["shards/", "a/b/", "./", "./a/./"] {
        let folder = sharded(&config, &|index| {
            for place in index["weight_map"].as_object_mut().unwrap().values_mut() {
                if *place == json!(first) {
                    *place = json!(format!("{prefix}{first}"));
                }
            }
        });
        let (from, to) = (folder.0.path().join(first), folder.0.path().join(prefix).join(first));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(from, to).unwrap();
        assert_holds(&folder.open(&config).unwrap(), &config, false);
    }
}

#[test]
fn a_size_that_the_config_does_not_give_is_named_where_the_weights_have_another() {
    let config = config(false);
    let folder = Folder::with(&model(&config, "F32"));
    let full = json!({
        "model_type": "llama", "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 5,
    });
    folder.write("config.json", full.to_string().as_bytes());
    let open =
        || Weights::open(folder.0.path(), &Config::read(&folder.0.path().join("config.json")).unwrap());
    open().unwrap();
    for (key, value) in [
        ("hidden_size", "4096"),
        ("intermediate_size", "11008"),
        ("num_hidden_layers", "32"),
        ("num_key_value_heads", "that of all heads"),
        ("vocab_size", "32000"),
    ] {
        let mut less = full.clone();
        less.as_object_mut().unwrap().remove(key);
        if key == "hidden_size" {
            less["num_attention_heads"] = json!(32);
        }
        folder.write("config.json", less.to_string().as_bytes());
        let message = open().unwrap_err().to_string();
        let told = format!(
            "config.json: {key} is not given and taken for {value}, which is what transformers assumes"
        );
        assert!(message.contains(&told) && message.contains(&format!("give {key}")), "{message}");
    }
}
