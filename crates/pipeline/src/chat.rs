//! A conversation: what was said so far, and the prompt that the model's own template makes of it.

use crate::{ChatTemplate, Message, Pipeline, RenderOptions, Result};
use offramp_text::PromptOptions;

/// The messages of a conversation, from the system's on.
#[derive(Debug)]
pub struct Chat {
    template: ChatTemplate,
    system: Option<String>,
    messages: Vec<Message>,
}

impl Chat {
    /// A conversation of which nothing is said yet; `system` stands before all that will be. The end that the template
    /// knows ends texts from now on: folders of models that were taught to chat often name one end in `config.json` and
    /// another in `tokenizer_config.json`.
    pub fn new(template: ChatTemplate, system: Option<String>, pipeline: &mut Pipeline) -> Self {
        let end = template.special_token("eos_token").and_then(|name| pipeline.tokenizer().token_id(name));
        end.into_iter().for_each(|id| pipeline.add_stop_token(id));
        let mut chat = Self { template, system, messages: Vec::new() };
        chat.reset();
        chat
    }

    /// Forgets what was said, but for the system's words.
    pub fn reset(&mut self) {
        self.messages = self.system.iter().map(|text| Message::new("system", text)).collect();
    }

    /// The user's turn.
    pub fn ask(&mut self, text: &str) {
        self.messages.push(Message::new("user", text));
    }

    /// The model's turn, as far as it came.
    pub fn answer(&mut self, text: &str) {
        self.messages.push(Message::new("assistant", text));
    }

    /// Takes the last turn back.
    pub fn take_back(&mut self) {
        self.messages.pop();
    }

    /// The text that the model is to answer.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn prompt(&self) -> Result<String> {
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        Ok(self.template.render(&self.messages, &options)?)
    }

    /// Its token ids. The template writes every special token itself, and none is added.
    ///
    /// # Errors
    /// As [`Chat::prompt`], and if the tokenizer cannot take the text.
    pub fn encode(&self, pipeline: &Pipeline) -> Result<Vec<u32>> {
        pipeline.encode(&self.prompt()?, PromptOptions::rendered())
    }
}
