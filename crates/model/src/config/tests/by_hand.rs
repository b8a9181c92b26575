//! Configs as people write them by hand: keys left out, by other names, numbers in quotes.

use super::*;

/// `LlamaConfig()` of transformers 5.24 is a Llama of 7B.
#[test]
fn a_config_that_says_nothing_is_the_one_that_transformers_assumes() {
    let config = Config::from_json("{\"model_type\": \"llama\"}", origin()).unwrap();
    assert_eq!((config.hidden_size, config.intermediate_size, config.vocab_size), (4096, 11008, 32000));
    assert_eq!((config.num_hidden_layers, config.num_attention_heads), (32, 32));
    assert_eq!((config.num_key_value_heads, config.head_dim), (32, 128));
    assert_eq!(config.parameter_count(), 6_738_415_616);
}

#[test]
fn what_is_assumed_and_does_not_fit_is_named() {
    let told = |json: Value| Config::from_json(&json.to_string(), origin()).unwrap_err().to_string();
    let message = told(json!({ "model_type": "llama", "hidden_size": 8 }));
    let assumed = "num_attention_heads is not given and taken for 32";
    assert!(message.contains("hidden_size is 8") && message.contains(assumed), "{message}");
    assert!(told(json!({ "hidden_size": 8 })).contains("model_type is missing: it must be \"llama\""));
}

#[test]
fn a_size_by_another_formats_name_is_told_its_own() {
    for (name, key) in [
        ("n_layers", "num_hidden_layers"),
        ("num_layers", "num_hidden_layers"),
        ("dim", "hidden_size"),
        ("n_heads", "num_attention_heads"),
        ("n_kv_heads", "num_key_value_heads"),
        ("norm_eps", "rms_norm_eps"),
        ("max_seq_len", "max_position_embeddings"),
    ] {
        let message = Config::from_json(&json!({ "model_type": "llama", name: 2 }).to_string(), origin());
        let message = message.unwrap_err().to_string();
        assert!(message.contains(&format!("{name} is 2: it must be called {key}")), "{message}");
        // Beside the right one it is nobody's.
        assert_eq!(
            with(json!({ key: 8, name: 2 })).is_ok(),
            key != "rms_norm_eps" && key != "num_key_value_heads"
        );
    }
}

#[test]
fn numbers_in_quotes_are_told_to_lose_them() {
    for (key, value) in [("hidden_size", "32"), ("rms_norm_eps", "1e-5"), ("tie_word_embeddings", "true")] {
        let message = message(json!({ key: value }));
        assert!(
            message.contains(&format!("{key} is \"{value}\"")) && message.ends_with(", without quotes"),
            "{message}"
        );
    }
}
