//! `offramp chat`: a conversation in the terminal, or one whose messages come from a pipe.

mod lines;

use crate::interrupt::Answering;
use crate::{generation, output, source};
use anyhow::{Result, bail};
use lines::{Command, HELP, Lines, Said};
use offramp_engine::{Session, Speculation, Workspace};
use offramp_pipeline::{Chat, Finish, GeneratedText, Pipeline};
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::ops::ControlFlow;

/// Talk with a model that was trained to chat
///
/// The conversation goes through the model's own chat template, as transformers applies it
/// (chat_template.jinja, or chat_template in tokenizer_config.json). Each line is a message; /help lists the
/// commands. Ctrl-C stops an answer. Messages may come from a pipe, one a line: then only the answers are
/// printed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp chat path/to/model --system \"Answer briefly.\" --temperature 0.7\n  printf 'Hello\\nAnd then?\\n' | offramp chat path/to/model"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::ModelArgument,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// At most so many new tokens in an answer
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_new_tokens: usize,
    #[command(flatten)]
    generation: generation::Arguments,
}

/// An answer, as JSON says it.
#[derive(Serialize)]
struct Answer {
    message: String,
    text: String,
    tokens: Vec<u32>,
    stop: &'static str,
    stop_string: Option<String>,
    conversation_tokens: usize,
    prompt_tokens: usize, // of them, those that had to be run
    decode_tokens_per_second: Option<f64>,
    time_to_first_token: f64,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let source = arguments.source.source()?;
    // Before the weights: most folders without a template are asked for a chat by mistake.
    let template = source.chat_template()?;
    let mut pipeline = source.open(&arguments.generation.formats())?;
    let chat = Chat::new(template, arguments.system.clone(), &mut pipeline);
    let mut talk = Talk {
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
    talk.check()?;
    talk.ask(&format!("{}: /help lists the commands, Ctrl-C stops an answer\n", source.path().display()));
    let mut lines = Lines::new(io::stdin().lock());
    loop {
        talk.ask("> ");
        let said = lines.next(|| talk.ask("… "))?;
        if talk.heed(said)?.is_break() {
            return Ok(());
        }
    }
}

/// The conversation, and what the model has computed of it.
struct Talk<'p> {
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

impl<'p> Talk<'p> {
    /// Whether the options are such that anything can be answered, before anything is said.
    fn check(&mut self) -> Result<()> {
        let Self { arguments, pipeline, speculation, .. } = self;
        let token = [0];
        let request = arguments.generation.request(pipeline, &token, 1);
        pipeline.begin(pipeline.session(1, 1)?, &request, speculation.clone())?;
        Ok(())
    }

    /// Says what a person should see before typing.
    fn ask(&self, words: &str) {
        if self.person {
            output::ask(words);
        }
    }

    /// Answers a message, or does what a command says; breaks where the conversation ends.
    fn heed(&mut self, said: Option<Said>) -> Result<ControlFlow<()>> {
        match said {
            None => {
                self.ask("\n");
                return Ok(ControlFlow::Break(()));
            }
            Some(Said::Command(Command::Quit)) => return Ok(ControlFlow::Break(())),
            Some(Said::Command(Command::Help)) => output::note(HELP),
            Some(Said::Command(Command::Reset)) => self.chat.reset(),
            Some(Said::Nothing) => {}
            Some(Said::Unknown(name)) => {
                let line = format!("/{name} is no command: put a space before a message that begins with /");
                if !self.person {
                    bail!(line);
                }
                output::note(&line);
            }
            Some(Said::Message(message)) => match self.turn(message) {
                // A person may say it otherwise; a script cannot.
                Err(error) if self.person && error.is::<offramp_pipeline::Error>() => {
                    output::note(&format!("error: {error:#}"));
                }
                answered => answered?,
            },
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A message and its answer. What could not be answered was not said.
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

    /// Prints the answer as it comes, unless it goes out as JSON; Ctrl-C stops it.
    fn generate(&mut self, session: Session, ids: &[u32]) -> Result<GeneratedText> {
        let Self { arguments, pipeline, .. } = *self;
        let mut request = arguments.generation.request(pipeline, ids, arguments.max_new_tokens);
        // The same question twice need not have the same answer.
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
        // What was computed of it is kept, whatever came of the answer.
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
    let GeneratedText { text, tokens, finish, statistics } = found;
    let (stop, stop_string) = match finish {
        // The answer has no other reader than who pressed Ctrl-C.
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

/// What is to be said of an answer that did not end by itself.
fn note(finish: &Finish, limit: usize) -> Option<String> {
    match finish {
        Finish::StopToken | Finish::StopString(_) => None,
        Finish::Length => Some(format!("cut after {limit} tokens: --max-new-tokens allows more")),
        Finish::ContextFull => Some("cut: the context is full; /reset begins a new conversation".to_owned()),
        Finish::Reader => Some("stopped".to_owned()),
    }
}
