//! Chat templates give the texts of `transformers` (`tests/python/make_chat_goldens.py`): every template of
//! `tests/fixtures/chat/` with every conversation there.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use offramp_pipeline::{ChatTemplate, ChatTemplateError, Json, Message, RenderOptions, TemplateClock};
use offramp_text::{PromptOptions, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    moment: String,
    special_tokens: BTreeMap<String, String>,
    conversations: BTreeMap<String, Conversation>,
    rendered: BTreeMap<String, BTreeMap<String, Answer>>,
    folders: BTreeMap<String, Folder>,
    /// By tokenizer and template.
    encoded: BTreeMap<String, BTreeMap<String, Encoded>>,
}

/// A conversation's text, and its ids.
#[derive(Deserialize)]
struct Encoded {
    text: String,
    ids: Vec<u32>,
}

/// The files of a model folder, and what its template renders for one message, without tools and with one.
#[derive(Deserialize)]
struct Folder {
    files: BTreeMap<String, serde_json::Value>,
    plain: Option<Answer>,
    with_tools: Option<Answer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conversation {
    messages: Vec<Message>,
    tools: Option<Json>,
    documents: Option<Json>,
    #[serde(default)]
    add_generation_prompt: bool,
    #[serde(default)]
    continue_final_message: bool,
    #[serde(default)]
    arguments: BTreeMap<String, Json>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Text(String),
    /// The message of `raise_exception`.
    Raised(String),
    /// Any other error, as Python words it.
    Error(String),
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat")
}

fn goldens() -> Goldens {
    let text = fs::read_to_string(folder().join("goldens.json")).expect("the goldens");
    serde_json::from_str(&text).expect("goldens")
}

impl Conversation {
    fn options(&self, moment: &str) -> RenderOptions {
        RenderOptions {
            add_generation_prompt: self.add_generation_prompt,
            continue_final_message: self.continue_final_message,
            tools: self.tools.clone(),
            documents: self.documents.clone(),
            arguments: self.arguments.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            clock: TemplateClock::fixed(moment).expect("the goldens' moment"),
        }
    }
}

/// The difference between a result and Python's; for two texts, the first line that differs.
fn difference(answer: &Result<String, ChatTemplateError>, expected: &Answer) -> Option<String> {
    match (answer, expected) {
        (Ok(text), Answer::Text(wanted)) if text == wanted => None,
        (Ok(text), Answer::Text(wanted)) => {
            let lines = text.split('\n').zip(wanted.split('\n')).find(|(ours, theirs)| ours != theirs);
            let (ours, theirs) = lines.unwrap_or((text, wanted));
            Some(format!("\n    ours   {ours:?}\n    theirs {theirs:?}"))
        }
        (Err(ChatTemplateError::Refused { message, .. }), Answer::Raised(wanted))
            if *message == wanted.split_whitespace().collect::<Vec<_>>().join(" ") =>
        {
            None
        }
        (Err(ChatTemplateError::Refused { .. }), _) => Some(format!("{answer:?}, not {expected:?}")),
        (Ok(text), Answer::Error(theirs)) => Some(format!("{text:?}, where Python fails: {theirs}")),
        (Err(error), Answer::Error(_)) => {
            let line = error.to_string();
            (line.contains('\n') || line.len() > 700).then(|| format!("an error of more than a line: {line}"))
        }
        _ => {
            Some(format!("{answer:?}, not {}", format!("{expected:?}").chars().take(200).collect::<String>()))
        }
    }
}

#[test]
fn templates_render_as_transformers_renders_them() {
    let goldens = goldens();
    let mut differences = Vec::new();
    let mut compared = 0;
    for (name, answers) in &goldens.rendered {
        let source = fs::read_to_string(folder().join(format!("{name}.jinja"))).expect("a template");
        let mut template = ChatTemplate::from_source(name, &source).expect("it compiles");
        for (token, text) in &goldens.special_tokens {
            template = template.with_special_token(token, text);
        }
        for (conversation, expected) in answers {
            let given = &goldens.conversations[conversation];
            let answer = template.render(&given.messages, &given.options(&goldens.moment));
            compared += 1;
            if let Some(difference) = difference(&answer, expected) {
                differences.push(format!("{name}, {conversation:?}: {difference}"));
            }
        }
    }
    assert!(compared >= 12 * 4, "{compared} texts compared");
    assert!(
        differences.is_empty(),
        "{} of {compared} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn a_folders_template_and_tokens_are_those_that_transformers_finds() {
    for (name, Folder { files, plain, with_tools }) in goldens().folders {
        let folder = tempfile::tempdir().expect("a folder");
        for (file, content) in &files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
            fs::write(path, text).expect("a file");
        }
        let tool = r#"[{"type": "function", "function": {"name": "get_weather"}}]"#;
        for (tools, expected) in [(None, plain), (Some(Json::parse(tool).expect("JSON")), with_tools)] {
            let options = RenderOptions { tools, ..RenderOptions::default() };
            let answer = ChatTemplate::from_folder(folder.path()).and_then(|found| {
                found.map(|found| found.render(&[Message::new("user", "Hi")], &options)).transpose()
            });
            let wrong = match (answer, &expected) {
                (Ok(None), None) => None,
                (Ok(Some(text)), Some(expected)) => difference(&Ok(text), expected),
                (Err(error), Some(expected)) => difference(&Err(error), expected),
                (answer, expected) => Some(format!("{answer:?}, not {expected:?}")),
            };
            assert!(wrong.is_none(), "{name}: {}", wrong.unwrap_or_default());
        }
    }
}

#[test]
fn a_rendered_conversation_has_the_ids_that_transformers_gives_it() {
    for (name, templates) in goldens().encoded {
        let tokenizer =
            Tokenizer::from_folder(&folder().join("../prompts").join(&name)).expect("a tokenizer");
        for (template, Encoded { text, ids }) in templates {
            let found = tokenizer.encode_prompt(&text, PromptOptions::rendered()).expect("ids");
            assert_eq!(found, ids, "{name}, {template}: {text:?}");
        }
    }
}
