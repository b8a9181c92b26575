//! What a folder without a tokenizer may have instead.

use std::path::Path;

/// Advice for a folder without a `tokenizer.json`, by what it holds instead.
pub(super) fn instead(folder: &Path) -> String {
    let has = |name: &str| folder.join(name).is_file();
    let slow = [&["tokenizer.model"][..], &["spiece.model"], &["vocab.json", "merges.txt"]];
    match slow.iter().find(|names| names.iter().all(|name| has(name))) {
        Some(names) => format!(
            "transformers makes it of {}, in that folder: `python -c \"from transformers import AutoTokenizer as T; \
             T.from_pretrained('.').save_pretrained('.')\"`",
            names.join(" and ")
        ),
        None => "copy it from where the model comes from".to_owned(),
    }
}
