//! Turns a conversation into the text form that the model was trained on: renders the folder's own template
//! as `transformers`' `apply_chat_template` does.
//!
//! Templates are programs from downloaded files. They have access to the conversation and nothing else. Their
//! steps are limited, which limits their memory, and so is their time. Their stack is large enough for any
//! nesting that fits into the longest template.

mod clock;
mod environment;
mod error;
mod folder;
mod json;
mod message;
mod methods;
mod python;
mod source;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use minijinja::Value;
use minijinja::value::ValueKind;

use environment::Compiled;
use error::Result;
use folder::{FolderTemplates, TemplateText};
use offramp_model::one_line;

pub use clock::TemplateClock;
pub use error::ChatTemplateError;
pub use message::{Json, Message};

/// Names of templates.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// The steps of every template, the steps for each message, and those for each 16 bytes of messages. A step
/// is one of the engine's instructions, or 64 bytes of text.
const STEPS: [u64; 3] = [2_000_000, 2_000, 1];

/// The time limit. Conversations of thousands of messages take a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The stack for compiling and rendering. The system provides only the part that is used.
const STACK: usize = 256 << 20;

/// A folder's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    default: Option<Compiled>,
    /// The template for conversations with tools.
    tool_use: Option<Compiled>,
    /// Where the templates come from, for messages.
    place: String,
    names: Vec<String>,
    special_tokens: BTreeMap<String, String>,
}

/// The inputs of a template beside the messages.
#[derive(Debug, Clone, Default)]
pub struct RenderOptions {
    /// Ends with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// Ends within the last message, so that the model continues it.
    pub continue_final_message: bool,
    /// A list of tools, each a JSON schema.
    pub tools: Option<Json>,
    /// A list of documents, each an object.
    pub documents: Option<Json>,
    /// Further variables of the template, such as `enable_thinking`.
    pub arguments: Vec<(String, Json)>,
    /// The time for `strftime_now`.
    pub clock: TemplateClock,
}

impl ChatTemplate {
    /// The template of a model folder: `chat_template.jinja` (and `additional_chat_templates/`), else
    /// `chat_template` in `tokenizer_config.json`. `None` if there is none.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or has the wrong form, if the template does not compile, or if there are
    /// several templates and none is called `default`.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>> {
        let FolderTemplates { mut templates, special_tokens } = folder::read(folder)?;
        if templates.is_empty() {
            return Ok(None);
        }
        let names = templates.keys().cloned().collect();
        let mut compile = move |name| {
            let source = templates.remove(name);
            source.map(|TemplateText { origin, text }| Compiled::new(&origin, &text)).transpose()
        };
        let (default, tool_use) =
            on_large_stack(PATIENCE, move || Ok((compile(DEFAULT)?, compile(TOOL_USE)?)))?;
        let template = Self { default, tool_use, place: folder.display().to_string(), names, special_tokens };
        if template.tool_use.is_none() {
            template.template(false)?;
        }
        Ok(Some(template))
    }

    /// The text of a folder's default template, if it has one.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or has the wrong form.
    pub fn text_in(folder: &Path) -> Result<Option<String>> {
        Ok(folder::read(folder)?.templates.remove(DEFAULT).map(|template| template.text))
    }

    /// A template from text; `origin` names it in messages.
    ///
    /// # Errors
    ///
    /// If it does not compile.
    pub fn from_source(origin: &str, source: &str) -> Result<Self> {
        let (name, text) = (origin.to_owned(), source.to_owned());
        let default = Some(on_large_stack(PATIENCE, move || Compiled::new(&name, &text))?);
        let (place, names) = (origin.to_owned(), vec![DEFAULT.to_owned()]);
        Ok(Self { default, tool_use: None, place, names, special_tokens: BTreeMap::new() })
    }

    /// Sets a special token for the template, such as `bos_token`.
    #[must_use]
    pub fn with_special_token(mut self, name: &str, text: &str) -> Self {
        self.special_tokens.insert(name.to_owned(), text.to_owned());
        self
    }

    /// A special token of the template.
    #[must_use]
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.special_tokens.get(name).map(String::as_str)
    }

    /// Whether a template has `text` in it, such as the marker of a call of a tool.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        [&self.default, &self.tool_use].into_iter().flatten().any(|template| template.contains(text))
    }

    /// The template for conversations with or without tools.
    fn template(&self, tools: bool) -> Result<&Compiled> {
        let template = self.tool_use.as_ref().filter(|_| tools).or(self.default.as_ref());
        template.ok_or_else(|| {
            let names = self.names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            ChatTemplateError::NoDefault { place: self.place.clone(), names: one_line(&names) }
        })
    }

    /// Renders the conversation as text. The text contains all special tokens by name, so encode it with
    /// special tokens read and none added.
    ///
    /// # Errors
    ///
    /// If the template refuses the conversation, fails, or takes too many steps; if there is no message; if
    /// the last message cannot be continued.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        if messages.is_empty() {
            return Err(ChatTemplateError::NoMessage);
        }
        let mut messages = messages.iter().map(Message::for_template).collect::<Vec<_>>();
        let template = self.template(options.tools.is_some())?;
        let continued = match (options.continue_final_message, options.add_generation_prompt) {
            (false, _) => None,
            (true, false) => Some(Continued::mark(&mut messages)?),
            (true, true) => {
                let reason = "the prompt cannot also begin a new answer: ask for one of the two".to_owned();
                return Err(ChatTemplateError::Continue(reason));
            }
        };
        let (context, steps) = (self.context(&messages, options)?, steps(&messages, options));
        let template = template.clone();
        let rendered = on_large_stack(PATIENCE, move || template.render(context, steps))?;
        match continued {
            Some(continued) => continued.cut(rendered),
            None => Ok(rendered),
        }
    }

    /// Every variable of the template.
    fn context(&self, messages: &[Message], options: &RenderOptions) -> Result<Value> {
        let mut variables =
            self.special_tokens.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
        let mut set = |name: &str, value: Value| {
            let variables: &mut BTreeMap<String, Value> = &mut variables;
            variables.insert(name.to_owned(), value);
        };
        let clock = options.clock;
        set("strftime_now", Value::from_function(move |format: &str| clock.strftime(format)));
        for (name, value) in &options.arguments {
            if ["messages", "tools", "documents", "add_generation_prompt"].contains(&name.as_str()) {
                let reason =
                    format!("a chat template's argument cannot be called {name:?}: it has that one already");
                return Err(ChatTemplateError::Input(reason));
            }
            set(name, value.0.clone());
        }
        set("messages", Value::from(messages.iter().map(Message::value).collect::<Vec<_>>()));
        set("tools", objects("tools", options.tools.as_ref())?);
        set("documents", objects("documents", options.documents.as_ref())?);
        set("add_generation_prompt", Value::from(options.add_generation_prompt));
        Ok(Value::from_pairs(variables))
    }
}

/// A list of objects, or none.
fn objects(name: &str, list: Option<&Json>) -> Result<Value> {
    let Some(Json(list)) = list else { return Ok(Value::from(())) };
    let fits = list.kind() == ValueKind::Seq
        && list.try_iter().is_ok_and(|mut items| items.all(|item| item.kind() == ValueKind::Map));
    if fits {
        Ok(list.clone())
    } else {
        Err(ChatTemplateError::Input(format!("{name} must be a list of JSON objects")))
    }
}

/// The steps that a template may take for this conversation.
fn steps(messages: &[Message], options: &RenderOptions) -> u64 {
    let given = [&options.tools, &options.documents].into_iter().flatten();
    let bytes = messages.iter().map(Message::size).sum::<u64>()
        + given.map(|json| message::size(&json.0)).sum::<u64>();
    STEPS[0] + STEPS[1] * messages.len() as u64 + STEPS[2] * bytes / 16
}

/// The last message with a mark at its end, so that the rendered text can be cut there.
struct Continued {
    text: String,
}

impl Continued {
    const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

    /// Puts the mark at the end of the last message's text.
    fn mark(messages: &mut [Message]) -> Result<Self> {
        let failed = |reason: &str| ChatTemplateError::Continue(reason.to_owned());
        let message = messages.last_mut().ok_or(ChatTemplateError::NoMessage)?;
        let content = message.get("content").cloned().ok_or_else(|| failed("it has no \"content\""))?;
        if let Some(text) = content.as_str() {
            message.set("content", Value::from(format!("{text}{}", Self::TAG)));
            return Ok(Self { text: text.to_owned() });
        }
        let blocks =
            content.try_iter().map_err(|_| failed("its \"content\" is neither a text nor a list"))?;
        let mut blocks = blocks.collect::<Vec<_>>();
        let block = blocks.iter_mut().rev().find_map(|block| {
            let text = block.get_attr("text").ok()?.as_str()?.to_owned();
            Some((block, text))
        });
        let (block, text) = block.ok_or_else(|| failed("its \"content\" holds no text"))?;
        let pairs = block.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten();
        *block = Value::from_pairs(
            pairs
                .map(|(key, value)| match key.as_str() {
                    Some("text") => (key, Value::from(format!("{text}{}", Self::TAG))),
                    _ => (key, value),
                })
                .collect::<Vec<_>>(),
        );
        message.set("content", Value::from(blocks));
        Ok(Self { text })
    }

    /// The rendered text up to the mark.
    fn cut(&self, rendered: String) -> Result<String> {
        let found = rendered.rfind(Self::TAG.trim_end()).filter(|_| rendered.contains(self.text.trim()));
        let at = found.ok_or_else(|| {
            let text = one_line(&self.text);
            ChatTemplateError::Continue(format!("the template does not print it as it is: {text}"))
        })?;
        // A template that strips its messages also removed the space in the mark.
        Ok(match rendered[at..].starts_with(Self::TAG) {
            true => rendered[..at].to_owned(),
            false => rendered[..at].trim_end().to_owned(),
        })
    }
}

/// Runs `work` on a thread with a large stack, and waits for it no longer than `patience`.
///
/// The limit of steps does not bound everything. If a list holds another list twice, which holds another
/// twice, and so on, comparing two such lists is one step of 2ⁿ comparisons. A thread cannot be stopped from
/// outside, so it goes on alone.
fn on_large_stack<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let builder = thread::Builder::new().name("chat template".to_owned()).stack_size(STACK);
    let worker = builder.spawn(move || {
        // If nobody waits any more, sending fails, and the result is not needed.
        let _ = sender.send(work());
    });
    let worker = worker.map_err(ChatTemplateError::Thread)?;
    match receiver.recv_timeout(patience) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Err(ChatTemplateError::TooLong { seconds: patience.as_secs() }),
        Err(RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a worker that ends has answered"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{{ a == b }}` for two lists that double at each of `levels` levels.
    fn doubled(levels: usize) -> Compiled {
        let source = format!(
            "{{% set a=[1] %}}{{% set b=[1] %}}{}{{{{ a == b }}}}",
            "{% set a=[a,a] %}{% set b=[b,b] %}".repeat(levels)
        );
        Compiled::new("a.jinja", &source).expect("it compiles")
    }

    #[test]
    fn a_template_is_not_waited_for_for_ever() {
        let (quick, endless) = (doubled(4), doubled(60));
        let answer = on_large_stack(PATIENCE, move || quick.render(Value::from(()), STEPS[0]));
        assert_eq!(answer.expect("a text"), "True");
        let patience = Duration::from_millis(50);
        let answer = on_large_stack(patience, move || endless.render(Value::from(()), STEPS[0]));
        assert!(matches!(answer, Err(ChatTemplateError::TooLong { .. })), "{answer:?}");
    }
}
