//! A conversation: its messages, and the prompt that the model's own template makes from them.

use crate::{ChatTemplate, Message, Pipeline, RenderOptions, Result};
use offramp_text::PromptOptions;

/// The messages of a conversation, beginning with the system's.
#[derive(Debug)]
pub struct Chat {
    template: ChatTemplate,
    system: Option<String>,
    messages: Vec<Message>,
}

impl Chat {
    /// A conversation without messages, except the `system` message if there is one. From now on the pipeline
    /// also ends texts at the template's end token: folders of chat models often name one end in
    /// `config.json` and another in `tokenizer_config.json`.
    pub fn new(template: ChatTemplate, system: Option<String>, pipeline: &mut Pipeline) -> Self {
        let end = template.special_token("eos_token").and_then(|name| pipeline.tokenizer().token_id(name));
        end.into_iter().for_each(|id| pipeline.add_stop_token(id));
        let mut chat = Self { template, system, messages: Vec::new() };
        chat.reset();
        chat
    }

    /// Removes all messages but the system's.
    pub fn reset(&mut self) {
        self.messages = self.system.iter().map(|text| Message::new("system", text)).collect();
    }

    /// Adds a message of the user.
    pub fn ask(&mut self, text: &str) {
        self.messages.push(Message::new("user", text));
    }

    /// Adds the model's answer, complete or not.
    pub fn answer(&mut self, text: &str) {
        self.messages.push(Message::new("assistant", text));
    }

    /// Removes the last message.
    pub fn take_back(&mut self) {
        self.messages.pop();
    }

    /// The text that the model should continue with its answer.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn prompt(&self) -> Result<String> {
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        Ok(self.template.render(&self.messages, &options)?)
    }

    /// The token ids of the prompt. The template writes every special token itself; none is added.
    ///
    /// # Errors
    /// As [`Chat::prompt`], and if the tokenizer cannot encode the text.
    pub fn encode(&self, pipeline: &Pipeline) -> Result<Vec<u32>> {
        pipeline.encode(&self.prompt()?, PromptOptions::rendered())
    }
}
