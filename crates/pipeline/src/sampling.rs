//! The sampling options: the user's, else those of `generation_config.json`, else our own.

use crate::GenerationConfig;
use offramp_engine::SamplingOptions;

/// Our own options, for stories that stay coherent.
const OURS: SamplingOptions = SamplingOptions { temperature: 0.6, top_p: 0.9, ..SamplingOptions::GREEDY };

/// The defaults of `GenerationConfig`, which `transformers` uses for keys that are missing beside
/// `do_sample`.
const THEIRS: SamplingOptions = SamplingOptions { temperature: 1.0, top_k: 50, ..SamplingOptions::GREEDY };

/// The user's options; `None` leaves a value to the model's folder.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UserSampling {
    /// Whether tokens are drawn at random, as `transformers` asks it.
    pub do_sample: Option<bool>,
    /// Below 1 sharpens the distribution; 0 is greedy.
    pub temperature: Option<f32>,
    /// Keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: Option<usize>,
    /// Keeps the most likely tokens until their probabilities sum to this.
    pub top_p: Option<f32>,
    /// Above 1 makes tokens that have occurred less likely.
    pub repetition_penalty: Option<f32>,
    /// Keeps only tokens that are at least this share as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Makes tokens less likely that have occurred in the new text.
    pub presence_penalty: f32,
    /// The same, for each time that they have occurred.
    pub frequency_penalty: f32,
    /// The same seed gives the same text.
    pub seed: u64,
}

/// The sampling options, and whether the folder set any.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// The options for the sampler.
    pub options: SamplingOptions,
    /// Whether any of them comes from `generation_config.json`.
    pub from_file: bool,
}

impl Sampling {
    /// The user's options come first, then the file's, then ours. A file without sampling keys leaves ours. A
    /// file with such keys is read as `transformers` reads it: without `do_sample` it means greedy. A user
    /// who gives `temperature`, `top_k` or `top_p` asks for sampling. One who says `do_sample` gets the
    /// defaults of `transformers` where the file has none.
    pub fn new(asked: &UserSampling, file: &GenerationConfig) -> Self {
        let UserSampling { do_sample, top_k, top_p, repetition_penalty, .. } = *asked;
        let temperature = if do_sample == Some(false) { Some(0.0) } else { asked.temperature };
        let own_way = temperature.is_some() || top_k.is_some() || top_p.is_some();
        let speaks = file.says_how_to_sample();
        let base = match speaks || do_sample == Some(true) {
            false => OURS,
            true => SamplingOptions {
                temperature: match do_sample.or(file.do_sample).unwrap_or(false) || own_way {
                    true => file.temperature.unwrap_or(THEIRS.temperature),
                    false => 0.0,
                },
                top_k: file.top_k.unwrap_or(THEIRS.top_k),
                top_p: file.top_p.unwrap_or(THEIRS.top_p),
                repetition_penalty: file.repetition_penalty.unwrap_or(THEIRS.repetition_penalty),
                ..SamplingOptions::GREEDY
            },
        };
        let decided = temperature.is_some() && top_k.is_some() && top_p.is_some();
        Self {
            options: SamplingOptions {
                temperature: temperature.unwrap_or(base.temperature),
                top_k: top_k.unwrap_or(base.top_k),
                top_p: top_p.unwrap_or(base.top_p),
                repetition_penalty: repetition_penalty.unwrap_or(base.repetition_penalty),
                min_p: asked.min_p,
                presence_penalty: asked.presence_penalty,
                frequency_penalty: asked.frequency_penalty,
                seed: asked.seed,
            },
            from_file: speaks && !(decided && repetition_penalty.is_some()),
        }
    }

    /// In words: "greedy", or the options that differ from plain sampling.
    pub fn describe(&self) -> String {
        let SamplingOptions { temperature, top_k, top_p, repetition_penalty, .. } = self.options;
        let mut words = vec![match temperature {
            0.0 => "greedy".to_owned(),
            _ => format!("temperature {temperature}"),
        }];
        if temperature != 0.0 && top_k != 0 {
            words.push(format!("top-k {top_k}"));
        }
        if temperature != 0.0 && top_p != 1.0 {
            words.push(format!("top-p {top_p}"));
        }
        let SamplingOptions { min_p, presence_penalty, frequency_penalty, .. } = self.options;
        if temperature != 0.0 && min_p != 0.0 {
            words.push(format!("min-p {min_p}"));
        }
        for (name, penalty, none) in [
            ("repetition", repetition_penalty, 1.0),
            ("presence", presence_penalty, 0.0),
            ("frequency", frequency_penalty, 0.0),
        ] {
            if penalty != none {
                words.push(format!("{name} penalty {penalty}"));
            }
        }
        words.join(", ") + if self.from_file { ", as generation_config.json says" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn sampling(asked: UserSampling, file: &str) -> String {
        let file = GenerationConfig::from_json(file, Path::new("generation_config.json")).unwrap();
        Sampling::new(&asked, &file).describe()
    }

    #[test]
    fn the_file_decides_what_the_user_does_not() {
        let llama = r#"{"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1}"#;
        let nothing = UserSampling::default();
        let says = ", as generation_config.json says";
        let all = format!("temperature 0.7, top-k 20, top-p 0.8, repetition penalty 1.1{says}");
        assert_eq!(sampling(nothing, llama), all);
        let hot = UserSampling { temperature: Some(2.0), ..nothing };
        assert_eq!(sampling(hot, llama), all.replace("0.7", "2"));
        let greedy = UserSampling { temperature: Some(0.0), repetition_penalty: Some(1.0), ..nothing };
        assert_eq!(sampling(greedy, llama), format!("greedy{says}"));
        let every = UserSampling { top_k: Some(0), top_p: Some(1.0), ..greedy };
        assert_eq!(sampling(every, llama), "greedy", "the file decides nothing");
    }

    #[test]
    fn keys_that_are_missing_are_what_transformers_takes_for_them() {
        let nothing = UserSampling::default();
        let says = ", as generation_config.json says";
        assert_eq!(sampling(nothing, r#"{"do_sample": true}"#), format!("temperature 1, top-k 50{says}"));
        assert_eq!(sampling(nothing, r#"{"temperature": 0.7}"#), format!("greedy{says}"));
        assert_eq!(sampling(nothing, r#"{"do_sample": false, "top_p": 0.8}"#), format!("greedy{says}"));
        let chance = UserSampling { top_p: Some(0.5), ..nothing };
        let drawn = sampling(chance, r#"{"do_sample": false, "temperature": 0.7}"#);
        assert_eq!(drawn, format!("temperature 0.7, top-k 50, top-p 0.5{says}"));
    }

    #[test]
    fn do_sample_decides_as_in_transformers() {
        let nothing = UserSampling::default();
        let (drawn, greedy) = (
            UserSampling { do_sample: Some(true), ..nothing },
            UserSampling { do_sample: Some(false), ..nothing },
        );
        let says = ", as generation_config.json says";
        assert_eq!(sampling(drawn, "{}"), "temperature 1, top-k 50");
        assert_eq!(sampling(drawn, r#"{"temperature": 0.7}"#), format!("temperature 0.7, top-k 50{says}"));
        assert_eq!(sampling(greedy, "{}"), "greedy");
        assert_eq!(sampling(greedy, r#"{"do_sample": true, "temperature": 0.7}"#), format!("greedy{says}"));
        assert_eq!(sampling(UserSampling { temperature: Some(0.9), ..greedy }, "{}"), "greedy");
    }

    #[test]
    fn a_file_that_says_nothing_leaves_our_own() {
        assert_eq!(sampling(UserSampling::default(), r#"{"eos_token_id": 2}"#), "temperature 0.6, top-p 0.9");
        assert_eq!(
            sampling(UserSampling { top_k: Some(5), ..UserSampling::default() }, "{}"),
            "temperature 0.6, top-k 5, top-p 0.9"
        );
    }
}
