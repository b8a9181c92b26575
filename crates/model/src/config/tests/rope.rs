//! Scaling for longer contexts: its keys, and the context that follows.

use super::*;

fn scaling(changes: Value) -> RopeScaling {
    let config = with(changes).unwrap();
    assert_eq!(Config::from_json(&config.to_json(), origin()).unwrap(), config);
    config.rope.scaling
}

/// YaRN with what transformers assumes.
fn plain_yarn(factor: f64, original: usize) -> Yarn {
    Yarn {
        factor,
        original_max_position_embeddings: original,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor: None,
        mscale: None,
        mscale_all_dim: None,
    }
}

#[test]
fn yarn_and_dynamic_scaling_are_read_from_either_generation_of_keys() {
    let dynamic = RopeScaling::Dynamic { factor: 2.5 };
    assert_eq!(scaling(json!({ "rope_scaling": { "type": "dynamic", "factor": 2.5 } })), dynamic);
    assert_eq!(scaling(json!({ "rope_parameters": { "rope_type": "dynamic", "factor": 2.5 } })), dynamic);
    let yarn = |changes: Value| match scaling(json!({ "rope_scaling": changes })) {
        RopeScaling::Yarn(yarn) => yarn,
        other => panic!("{other:?}"),
    };
    let found = yarn(json!({ "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16 }));
    assert_eq!(found, plain_yarn(4.0, 16));
    // transformers takes 0 and null of these keys as absent.
    let found =
        yarn(json!({ "rope_type": "yarn", "factor": 4, "beta_fast": 0, "beta_slow": null, "mscale": 0 }));
    assert_eq!(found, plain_yarn(4.0, 64));
    let found = yarn(json!({
        "rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 8, "beta_fast": 16, "beta_slow": 2,
        "truncate": false, "attention_factor": 1.5, "mscale": 0.7, "mscale_all_dim": 0.9,
    }));
    let rest = plain_yarn(8.0, 8);
    let expected = Yarn { beta_fast: 16.0, beta_slow: 2.0, truncate: false, ..rest };
    let expected = Yarn { mscale: Some(0.7), mscale_all_dim: Some(0.9), ..expected };
    assert_eq!(found, Yarn { attention_factor: Some(1.5), ..expected });
    // Outside the block it is taken before the one inside.
    let outside = json!({ "original_max_position_embeddings": 32, "rope_scaling": {
        "type": "yarn", "factor": 2, "original_max_position_embeddings": 16,
    }});
    assert_eq!(scaling(outside), RopeScaling::Yarn(plain_yarn(2.0, 32)));
}

#[test]
fn an_attention_factor_follows_from_what_is_given() {
    let close = |yarn: Yarn, expected: f64| {
        let found = yarn.attention_factor();
        assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
    };
    let plain = plain_yarn(4.0, 16);
    close(plain, 1.138_629_436_111_989); // 0.1 · ln 4 + 1
    close(Yarn { factor: 1.0, ..plain }, 1.0);
    close(Yarn { mscale: Some(2.0), ..plain }, 1.138_629_436_111_989);
    let both = Yarn { mscale: Some(2.0), mscale_all_dim: Some(0.5), ..plain };
    close(both, 1.277_258_872_223_978 / 1.069_314_718_055_994_5);
    close(Yarn { attention_factor: Some(0.25), ..both }, 0.25);
}

#[test]
fn the_context_is_what_scaling_makes_of_it() {
    let context = |block: Value| with(json!({ "rope_parameters": block })).unwrap().context();
    assert_eq!(context(json!({ "rope_type": "default" })), 64);
    assert_eq!(context(json!({ "rope_type": "linear", "factor": 2.5 })), 160);
    assert_eq!(context(json!({ "rope_type": "dynamic", "factor": 2 })), 128);
    let prompts =
        |kind| with(json!({ "rope_scaling": { "type": kind, "factor": 2 } })).unwrap().prompt_context();
    assert_eq!((prompts("dynamic"), prompts("linear")), (64, 128));
    assert_eq!(context(json!({ "rope_type": "yarn", "factor": 4 })), 256);
    let original = |original: usize, factor: f64| {
        context(
            json!({ "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original }),
        )
    };
    assert_eq!((original(16, 4.0), original(16, 2.0), original(16, 5.0)), (64, 64, 80));
    let llama3 = json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4 });
    assert_eq!(context(llama3), 64);
    let large =
        json!({ "max_position_embeddings": 1 << 30, "rope_scaling": { "type": "linear", "factor": 1e6 } });
    assert_eq!(with(large).unwrap().context(), 1 << 30);
}

#[test]
fn scaling_that_cannot_be_computed_is_refused_by_name() {
    let refused = |block: Value, expected: &str| {
        let message = message(json!({ "rope_parameters": block }));
        assert!(message.contains(&format!("json: rope_parameters.{expected}")), "{message}");
    };
    refused(
        json!({ "rope_type": "longrope" }),
        "rope_type is \"longrope\": it must be \"default\", \"linear\", \"dy",
    );
    refused(json!({ "rope_type": "yarn" }), "factor is missing: it must be given");
    refused(json!({ "rope_type": "yarn", "factor": 0.5 }), "factor is 0.5: it must be 1 to 1e6");
    refused(json!({ "rope_type": "dynamic", "factor": 0 }), "factor is 0: it must be 1 to 1e6");
    refused(
        json!({ "rope_type": "yarn", "factor": 2, "beta_fast": 2, "beta_slow": 3 }),
        "beta_fast is 2: it must",
    );
    refused(
        json!({ "rope_type": "yarn", "factor": 2, "mscale_all_dim": -1 }),
        "mscale_all_dim is -1: it must be",
    );
    refused(
        json!({ "rope_type": "yarn", "factor": 2, "attention_factor": 0 }),
        "attention_factor is 0: it must",
    );
    refused(
        json!({ "rope_type": "yarn", "factor": 2, "truncate": 1 }),
        "truncate is 1: it must be true or false",
    );
    let zero = json!({ "rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 0 });
    refused(zero, "original_max_position_embeddings is 0: it must be 1 to");
    refused(json!({ "full_attention": { "rope_type": "default" } }), "full_attention is {");
    let base = json!({ "rope_theta": 1.0, "rope_scaling": { "type": "yarn", "factor": 2 } });
    assert!(message(base).contains("rope_theta is 1: it must be above 1"));
    let narrow = json!({ "head_dim": 2, "rope_scaling": { "type": "dynamic", "factor": 2 } });
    assert!(message(narrow).contains("head_dim is 2: it must be 4 or more"));
}
