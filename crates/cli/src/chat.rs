//! `offramp chat`: a conversation in the terminal, or with messages from a pipe.

mod lines;

use crate::interrupt::Answering;
use crate::{generation, output, source};
use anyhow::{Result, bail};
use lines::{Command, HELP, Lines, UserInput};
use offramp_engine::{Session, Speculation, Workspace};
use offramp_pipeline::{Chat, Finish, GeneratedText, Pipeline};
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::ops::ControlFlow;

/// Chat with a model that was trained for it
///
/// The conversation goes through the model's own chat template, as transformers applies it
/// (chat_template.jinja, or chat_template in tokenizer_config.json). Each line is a message; /help lists the
/// commands. Ctrl-C stops an answer. Messages may come from a pipe, one per line; then only the answers are
/// printed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp chat path/to/model --system \"Answer briefly.\" --temperature 0.7\n  printf 'Hello\\nAnd then?\\n' | offramp chat path/to/model"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::ModelArgument,
    /// The system message, before the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// At most N new tokens in an answer
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_new_tokens: usize,
    #[command(flatten)]
    generation: generation::Arguments,
}

/// An answer as JSON.
#[derive(Serialize)]
struct Answer {
    message: String,
    text: String,
    tokens: Vec<u32>,
    stop: &'static str,
    stop_string: Option<String>,
    conversation_tokens: usize,
    prompt_tokens: usize, // those of them that were not in the cache
    decode_tokens_per_second: Option<f64>,
    time_to_first_token: f64,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let source = arguments.source.source()?;
    // Checked before the weights are loaded: most folders without a template are not chat models.
    let template = source.chat_template()?;
    let mut pipeline = source.open(&arguments.generation.formats())?;
    let chat = Chat::new(template, arguments.system.clone(), &mut pipeline);
    let mut conversation = Conversation {
        arguments,
        pipeline: &pipeline,
        chat,
        session: None,
        speculation: arguments.generation.speculation(&pipeline)?,
        workspace: Workspace::new(),
        answers: 0,
        json,
        person: io::stdin().is_terminal(),
    };
    conversation.check()?;
    conversation.ask(&format!("{}: /help lists the commands, Ctrl-C stops an answer\n", source.name()));
    let mut lines = Lines::new(io::stdin().lock());
    loop {
        conversation.ask("> ");
        let input = lines.next(|| conversation.ask("… "))?;
        if conversation.handle(input)?.is_break() {
            return Ok(());
        }
    }
}

/// The conversation, and what the model has computed for it.
struct Conversation<'p> {
    arguments: &'p Arguments,
    pipeline: &'p Pipeline,
    chat: Chat,
    session: Option<Session>,
    speculation: Speculation,
    workspace: Workspace,
    answers: u64,
    json: bool,
    /// Whether a person types, and not a script.
    person: bool,
}

impl<'p> Conversation<'p> {
    /// Checks the options before the first message.
    fn check(&mut self) -> Result<()> {
        let Self { arguments, pipeline, speculation, .. } = self;
        let token = [0];
        let request = arguments.generation.request(pipeline, &token, 1);
        pipeline.begin(pipeline.session(1, 1)?, &request, speculation.clone())?;
        Ok(())
    }

    /// Prints what a person should see before typing.
    fn ask(&self, words: &str) {
        if self.person {
            output::ask(words);
        }
    }

    /// Answers a message or executes a command. Breaks at the end of the conversation.
    fn handle(&mut self, input: Option<UserInput>) -> Result<ControlFlow<()>> {
        match input {
            None => {
                self.ask("\n");
                return Ok(ControlFlow::Break(()));
            }
            Some(UserInput::Command(Command::Quit)) => return Ok(ControlFlow::Break(())),
            Some(UserInput::Command(Command::Help)) => output::note(HELP),
            Some(UserInput::Command(Command::Reset)) => self.chat.reset(),
            Some(UserInput::Nothing) => {}
            Some(UserInput::Unknown(name)) => {
                let line = format!("/{name} is no command: put a space before a message that begins with /");
                if !self.person {
                    bail!(line);
                }
                output::note(&line);
            }
            Some(UserInput::Message(message)) => match self.turn(message) {
                // A person may try again; a script cannot.
                Err(error) if self.person && error.is::<offramp_pipeline::Error>() => {
                    output::note(&format!("error: {error:#}"));
                }
                answered => answered?,
            },
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Adds a message and its answer. A message that could not be answered is removed again.
    fn turn(&mut self, message: String) -> Result<()> {
        self.chat.ask(&message);
        match self.answer(message) {
            Ok(text) => self.chat.answer(&text),
            Err(error) => {
                self.chat.take_back();
                return Err(error);
            }
        }
        Ok(())
    }

    fn answer(&mut self, message: String) -> Result<String> {
        let ids = self.chat.encode(self.pipeline)?;
        let context = self.pipeline.model().config().prompt_context();
        if ids.len() >= context {
            return Err(offramp_pipeline::Error::ConversationFull { tokens: ids.len(), context }.into());
        }
        let limit = self.arguments.max_new_tokens;
        let session = self.pipeline.longer_session(self.session.take(), ids.len(), limit)?;
        let found = self.generate(session, &ids);
        self.answers += 1;
        let found = found?;
        let text = found.text.clone();
        if self.json {
            output::json(&answer(message, ids.len(), found))?;
        } else {
            output::text("\n")?;
            if let Some(note) = note(&found.finish, limit) {
                output::note(&format!("[{note}]"));
            }
        }
        Ok(text)
    }

    /// Generates the answer, and prints it as it comes unless it is JSON. Ctrl-C stops it.
    fn generate(&mut self, session: Session, ids: &[u32]) -> Result<GeneratedText> {
        let Self { arguments, pipeline, .. } = *self;
        let mut request = arguments.generation.request(pipeline, ids, arguments.max_new_tokens);
        // The same question need not get the same answer twice.
        request.sampling.seed = request.sampling.seed.wrapping_add(self.answers);
        let mut generation = pipeline.begin(session, &request, self.speculation.clone())?;
        let answering = Answering::begin();
        let mut failed = None;
        let json = self.json;
        let ran = generation.run(&mut self.workspace, &mut |piece| {
            failed = if json { None } else { output::text(&piece.text).err() };
            if failed.is_some() || answering.stopped() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        // The session is kept, even if the answer failed.
        let (found, session, speculation) = generation.into_parts();
        (self.session, self.speculation) = (Some(session), speculation);
        ran?;
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(found),
        }
    }
}

fn answer(message: String, conversation_tokens: usize, found: GeneratedText) -> Answer {
    let GeneratedText { text, tokens, finish, statistics, .. } = found;
    let (stop, stop_string) = match finish {
        // Only a Ctrl-C stops a chat's answer this way.
        Finish::Reader => ("interrupted", None),
        finish => generation::finish(finish),
    };
    Answer {
        message,
        text,
        tokens,
        stop,
        stop_string,
        conversation_tokens,
        prompt_tokens: statistics.prompt_tokens,
        decode_tokens_per_second: statistics.decode_tokens_per_second(),
        time_to_first_token: statistics.time_to_first_token.as_secs_f64(),
    }
}

/// The note after an answer that did not end by itself.
fn note(finish: &Finish, limit: usize) -> Option<String> {
    match finish {
        Finish::StopToken | Finish::StopString(_) => None,
        Finish::Length => Some(format!("cut after {limit} tokens: --max-new-tokens allows more")),
        Finish::ContextFull => Some("cut: the context is full; /reset begins a new conversation".to_owned()),
        Finish::Reader => Some("stopped".to_owned()),
    }
}
