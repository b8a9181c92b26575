//! Bounds how much longer a tokenizer's steps may make a text.
//!
//! The steps of a `tokenizer.json` are a program that came from a file. Each step alone is harmless, but ten
//! steps that replace a letter by eight turn one letter into a gigabyte. A few kinds of steps make a text
//! longer in proportion, and their factors multiply.

use serde_json::Value;

use crate::error::{Error, Result};

/// The largest factor by which a text may grow. Real tokenizers need 16 at most: a space as `▁`, bytes
/// spelled as characters.
const MOST_TIMES: f64 = 256.0;

/// The most token ids that a post-processor may add. Real ones add two.
const MOST_ADDED: usize = 1 << 16;

/// Refuses a tokenizer whose steps could make a text too long for memory.
///
/// # Errors
/// [`Error::Tokenizer`], which names the part.
pub(super) fn check(inner: &tokenizers::Tokenizer) -> Result<()> {
    let json = |part: serde_json::Result<Value>| part.map_err(Error::tokenizer);
    let normalizer = json(serde_json::to_value(inner.get_normalizer()))?;
    let pre_tokenizer = json(serde_json::to_value(inner.get_pre_tokenizer()))?;
    let decoder = json(serde_json::to_value(inner.get_decoder()))?;
    let post_processor = json(serde_json::to_value(inner.get_post_processor()))?;
    for (parts, times) in [
        ("normalizer and pre_tokenizer", times(&normalizer) * times(&pre_tokenizer)),
        ("decoder", times(&decoder)),
        ("post_processor", times(&post_processor)),
    ] {
        if times > MOST_TIMES {
            let reason =
                format!("its {parts} may make a text {times:.0} times as long, and {MOST_TIMES} is enough");
            return Err(Error::tokenizer(reason));
        }
    }
    let added = added(&post_processor);
    match added > MOST_ADDED {
        true => Err(Error::tokenizer(format!("its post_processor adds {added} tokens to every text"))),
        false => Ok(()),
    }
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

/// The steps of a sequence.
fn steps(step: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["normalizers", "pretokenizers", "decoders", "processors"];
    lists.into_iter().filter_map(|key| step[key].as_array()).flatten()
}

/// The factor by which a step may lengthen a text. What a step adds once per text does not count.
fn times(step: &Value) -> f64 {
    match kind(step) {
        "Sequence" => steps(step).map(times).product(),
        "Replace" => {
            let content = step["content"].as_str().map_or(0, str::len) as f64;
            let pattern = &step["pattern"];
            let shortest = match (pattern["String"].as_str(), pattern["Regex"].as_str()) {
                (Some(text), _) => text.len(),
                (None, Some(regex)) => shortest_match(regex),
                (None, None) => 0,
            };
            // A pattern that matches the empty string matches between every two characters.
            if shortest == 0 { 1.0 + content } else { (content / shortest as f64).max(1.0) }
        }
        // Each byte becomes a character of two bytes, and each word gets a space.
        "ByteLevel" => 4.0,
        "TemplateProcessing" => {
            pieces(step).filter(|piece| piece.get("Sequence").is_some()).count().max(1) as f64
        }
        _ => 1.0,
    }
}

/// The number of token ids that a post-processor adds to a text, if no step repeats another's.
fn added(step: &Value) -> usize {
    match kind(step) {
        "Sequence" => steps(step).map(added).sum(),
        "TemplateProcessing" => {
            let ids = |piece: &Value| {
                let name = piece["SpecialToken"]["id"].as_str()?;
                step["special_tokens"][name]["ids"].as_array().map(Vec::len)
            };
            pieces(step).filter_map(ids).sum()
        }
        _ => 0,
    }
}

/// The pieces of a template for one text.
fn pieces(template: &Value) -> impl Iterator<Item = &Value> {
    template["single"].as_array().into_iter().flatten()
}

/// The shortest match of a pattern in bytes; 0 if that is unknown.
fn shortest_match(regex: &str) -> usize {
    let parsed = regex_syntax::Parser::new().parse(regex);
    parsed.ok().and_then(|parsed| parsed.properties().minimum_len()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::super::{PromptOptions, Tokenizer};
    use super::*;

    fn tokenizer(part: &str, steps: Value) -> Result<Tokenizer> {
        let mut file = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "decoder": null,
            "post_processor": null,
            "model": { "type": "WordLevel", "vocab": { "a": 0, "?": 1 }, "unk_token": "?" },
        });
        file[part] = steps;
        Tokenizer::from_json(file.to_string().as_bytes(), Path::new("tokenizer.json"))
    }

    fn repeated(list: &str, step: &Value, count: usize) -> Value {
        json!({ "type": "Sequence", list: vec![step; count] })
    }

    #[test]
    fn steps_that_multiply_a_text_are_refused() {
        let replace =
            |pattern: Value| json!({ "type": "Replace", "pattern": pattern, "content": "aaaaaaaa" });
        let letter = replace(json!({ "String": "a" }));
        let anything = replace(json!({ "Regex": "x*" }));
        let level = json!({
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        });
        let twice = json!({
            "type": "TemplateProcessing", "special_tokens": {}, "pair": [],
            "single": vec![json!({ "Sequence": { "id": "A", "type_id": 0 } }); 2],
        });
        for (part, list, step, count) in [
            ("normalizer", "normalizers", &letter, 12),
            ("normalizer", "normalizers", &anything, 12),
            ("normalizer", "normalizers", &json!({ "type": "ByteLevel" }), 40),
            ("pre_tokenizer", "pretokenizers", &level, 40),
            ("decoder", "decoders", &letter, 12),
            ("post_processor", "processors", &twice, 40),
        ] {
            let message = tokenizer(part, repeated(list, step, count)).expect_err(part).to_string();
            assert!(message.contains(part) && message.contains("times as long"), "{message}");
            assert!(tokenizer(part, repeated(list, step, 2)).is_ok(), "two of {step}");
        }
        // Within one another, too.
        let inner = repeated("normalizers", &letter, 3);
        assert!(tokenizer("normalizer", repeated("normalizers", &inner, 4)).is_err());
    }

    #[test]
    fn a_template_that_adds_a_token_a_million_times_is_refused() {
        let template = |count: usize| {
            let ids = vec![0; 1 << 10];
            json!({
                "type": "TemplateProcessing", "pair": [],
                "special_tokens": { "a": { "id": "a", "ids": ids, "tokens": vec!["a"; 1 << 10] } },
                "single": vec![json!({ "SpecialToken": { "id": "a", "type_id": 0 } }); count],
            })
        };
        let message = tokenizer("post_processor", template(1 << 10)).expect_err("too many").to_string();
        assert!(message.contains("adds 1048576 tokens"), "{message}");
        let ids =
            tokenizer("post_processor", template(3)).unwrap().encode_prompt("a", PromptOptions::default());
        assert_eq!(ids.unwrap().len(), 3 << 10);
    }

    /// Patterns of tokenizers that people use: none of them grows.
    #[test]
    fn what_people_use_is_far_from_the_limit() {
        let replace = |regex: &str, content: &str| {
            times(&json!({ "type": "Replace", "pattern": { "Regex": regex }, "content": content }))
        };
        assert_eq!(replace(" {2,}", "\u{2581}"), 1.5);
        assert_eq!(replace(r"\s+", " "), 1.0);
        assert_eq!(replace(r"(?<=a)b", "b"), 2.0); // looks behind: nobody can tell
        let spaces = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" });
        assert_eq!(times(&repeated("normalizers", &spaces, 1)), 3.0);
    }
}
