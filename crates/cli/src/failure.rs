//! Decides which errors are a user's mistake (exit code 2) and which are a failure (1). A reader that has
//! closed stdout is neither.

use crate::output::{Unwritten, note};
use clap::error::ErrorKind;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

const FAILURE: u8 = 1;
const MISTAKE: u8 = 2;
/// As in shells: 128 plus the number of SIGPIPE, which ends most programs whose reader has gone.
const READER_GONE: u8 = 141;

/// Prints the error in one line and returns the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let code = exit_code(error);
    let kind = if code == READER_GONE { "stopped" } else { "error" };
    note(&format!("{kind}: {}", one_line(error)));
    ExitCode::from(code)
}

/// Answers arguments that do not parse: prints the help if it was asked for, else the mistake in one line.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    if error.exit_code() == 0 {
        let printed = error.print().and_then(|()| io::stdout().flush());
        return match printed {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&Unwritten::from(error).into()),
        };
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print(); // to stderr
    } else {
        note(&one_line_of_usage(&error.render().to_string()));
    }
    ExitCode::from(MISTAKE)
}

/// The first paragraph, which says what is wrong, and the tip, if there is one.
fn one_line_of_usage(rendered: &str) -> String {
    let paragraphs = rendered.split("\n\n").enumerate();
    let kept = paragraphs.filter(|(index, text)| *index == 0 || text.trim_start().starts_with("tip:"));
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    kept.map(|(_, text)| words(text)).collect::<Vec<_>>().join("; ")
}

/// Runs `work`. A panic becomes an error in one line, with the exit code of a failure.
///
/// The hook only stores the message. Some libraries panic on damaged files; the crates that call them catch
/// that and report it better.
pub(crate) fn guarded(work: impl FnOnce() -> ExitCode) -> ExitCode {
    panic::set_hook(Box::new(|info| {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        note(&format!("error: a fault in offramp itself, please report it: {}", last_panic()));
        ExitCode::from(FAILURE)
    })
}

/// What the last panic said.
static LAST: Mutex<String> = Mutex::new(String::new());

/// The same in one line.
pub(crate) fn last_panic() -> String {
    let message = LAST.lock().unwrap_or_else(PoisonError::into_inner).clone();
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The error and its causes. A cause that the line already contains is left out.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let message = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !line.contains(&message) {
            let colon = if line.is_empty() { "" } else { ": " };
            line += &format!("{colon}{message}");
        }
    }
    line
}

/// Errors of the disk or of the arithmetic are failures. All others come from the user's input.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        is_text_failure(error) || is_model_failure(error) || is_train_failure(error) || is_run_failure(error)
    };
    match error.downcast_ref() {
        Some(Unwritten::ReaderGone) => READER_GONE,
        Some(Unwritten::Failed(_)) => FAILURE,
        None if error.chain().any(failed) || error.is::<io::Error>() => FAILURE,
        None => MISTAKE,
    }
}

/// Whether reading an existing file failed. A missing file is a mistake.
fn is_reading(source: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    !matches!(source.kind(), NotFound | PermissionDenied | IsADirectory | NotADirectory | InvalidInput)
}

fn is_text_failure(error: &(dyn std::error::Error + 'static)) -> bool {
    use offramp_text::Error::{Read, Write};
    match error.downcast_ref() {
        Some(Read { source, .. }) => is_reading(source),
        Some(Write { .. }) => true,
        _ => false,
    }
}

fn is_model_failure(error: &(dyn std::error::Error + 'static)) -> bool {
    use offramp_model::Error::{Hub, Read, Write};
    match error.downcast_ref() {
        Some(Read { source, .. }) => is_reading(source),
        Some(Write { .. }) => true,
        Some(Hub(error)) => !error.is_mistake(),
        _ => false,
    }
}

fn is_train_failure(error: &(dyn std::error::Error + 'static)) -> bool {
    use offramp_train::Error::{Checkpoint, DiskFull, Diverged, Model, Read, Text, Write};
    match error.downcast_ref() {
        Some(Read { source, .. }) => is_reading(source),
        Some(Write { .. } | Diverged { .. } | DiskFull { .. }) => true,
        // The chain contains the box, not the error in it.
        Some(Checkpoint { source, .. }) => is_model_failure(&**source),
        // A transparent error does not stand in the chain itself.
        Some(Model(error)) => is_model_failure(error),
        Some(Text(error)) => is_text_failure(error),
        _ => false,
    }
}

fn is_run_failure(error: &(dyn std::error::Error + 'static)) -> bool {
    use offramp_pipeline::{ChatTemplateError, Error as Pipeline};
    let engine = |error: &offramp_engine::Error| match error {
        offramp_engine::Error::NotFinite { .. } => true,
        offramp_engine::Error::Model(error) => is_model_failure(error),
        _ => false,
    };
    let pipeline = |error: &Pipeline| match error {
        Pipeline::Engine(error) => engine(error),
        Pipeline::Model(error) => is_model_failure(error),
        Pipeline::Text(error) => is_text_failure(error),
        Pipeline::Read { source, .. } | Pipeline::ChatTemplate(ChatTemplateError::Read { source, .. }) => {
            is_reading(source)
        }
        Pipeline::ChatTemplate(ChatTemplateError::Thread(_)) => true,
        _ => false,
    };
    if error.is::<crate::verify::TextsDiffer>() {
        return true;
    }
    if let Some(error) = error.downcast_ref::<Pipeline>() {
        return pipeline(error);
    }
    match error.downcast_ref() {
        Some(offramp_serve::Error::Pipeline(error)) => return pipeline(error),
        Some(offramp_serve::Error::Thread(_) | offramp_serve::Error::NoWorker) => return true,
        _ => (),
    }
    match error.downcast_ref() {
        Some(offramp_eval::Error::Engine(error)) => engine(error),
        Some(offramp_eval::Error::Model(error)) => is_model_failure(error),
        Some(offramp_eval::Error::Text(error)) => is_text_failure(error),
        Some(offramp_eval::Error::Pipeline(error)) => pipeline(error),
        _ => error.downcast_ref().is_some_and(engine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn code(error: impl Into<anyhow::Error>) -> u8 {
        exit_code(&error.into())
    }

    #[test]
    fn a_cause_is_said_once() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        let reason = source.to_string();
        let line = one_line(&offramp_text::Error::Read { path: PathBuf::from("x"), source }.into());
        assert_eq!(line.matches(&reason).count(), 1, "{line}");
        let nested = anyhow::anyhow!("the\n  disk").context("while writing");
        assert_eq!(one_line(&nested), "while writing: the disk");
    }

    #[test]
    fn usage_is_said_in_one_line() {
        let rendered = "error: unexpected argument '--exit' found\n\n  tip: a similar argument exists: '--exits'\n\n\
                        Usage: offramp bench\n\nFor more information, try '--help'.\n";
        let line = one_line_of_usage(rendered);
        assert_eq!(
            line,
            "error: unexpected argument '--exit' found; tip: a similar argument exists: '--exits'"
        );
        let rendered =
            "error: required arguments were not provided:\n  <MODEL>\n\nUsage: offramp eval <MODEL>\n";
        assert_eq!(one_line_of_usage(rendered), "error: required arguments were not provided: <MODEL>");
    }

    #[test]
    fn a_full_disk_is_a_failure_and_a_wrong_path_a_mistake() {
        let path = PathBuf::from("x");
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(code(offramp_text::Error::Write { path: path.clone(), source: full() }), FAILURE);
        let nested = offramp_model::Error::Write { path: path.clone(), source: full() };
        assert_eq!(code(offramp_train::Error::from(nested)), FAILURE);
        assert_eq!(code(offramp_train::Error::Diverged { step: 3, in_a_row: 10 }), FAILURE);
        assert_eq!(code(offramp_engine::Error::NotFinite { position: 0 }), FAILURE);
        assert_eq!(code(crate::verify::TextsDiffer(1)), FAILURE);
        assert_eq!(code(offramp_model::Error::Read { path: path.clone(), source: missing() }), MISTAKE);
        let torn = || io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(code(offramp_model::Error::Read { path: path.clone(), source: torn() }), FAILURE);
        let checkpoint = |source| {
            let source = Box::new(offramp_model::Error::Read { path: path.clone(), source });
            code(offramp_train::Error::Checkpoint { path: path.clone(), source, before: None })
        };
        assert_eq!((checkpoint(torn()), checkpoint(missing())), (FAILURE, MISTAKE));
        let room = offramp_train::Error::DiskFull { path: path.clone(), needed: 2, free: 1 };
        assert_eq!(code(room), FAILURE);
        assert_eq!(code(offramp_model::Error::ExitLayer { found: 25, layers: 24 }), MISTAKE);
        assert_eq!(code(anyhow::anyhow!("--split is neither")), MISTAKE);
    }

    /// The next test runs this one in its own process.
    #[test]
    #[ignore = "the next test runs it"]
    fn a_panic_is_a_failure() {
        let code = guarded(|| panic!("of the\n  work"));
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(FAILURE)));
    }

    /// Once, the line could not be written, and the panic that followed waited for ever for a lock that its
    /// own thread held.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_panic_ends_though_its_line_cannot_be_written() {
        use std::process::{Command, Stdio};
        let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let broken = || Stdio::from(io::pipe().unwrap().1);
        for stderr in [full(), broken()] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--ignored", "--exact", "--nocapture", "failure::tests::a_panic_is_a_failure"]);
            let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
            let began = std::time::Instant::now();
            let status = loop {
                match child.try_wait().unwrap() {
                    Some(status) => break status,
                    None if began.elapsed().as_secs() > 60 => {
                        child.kill().unwrap();
                        panic!("it hangs");
                    }
                    None => std::thread::sleep(std::time::Duration::from_millis(2)),
                }
            };
            assert!(status.success(), "{status}");
        }
    }

    #[test]
    fn a_reader_who_has_gone_is_no_failure_and_a_full_stdout_is() {
        let unwritten = |kind| code(Unwritten::from(io::Error::from(kind)));
        assert_eq!(unwritten(io::ErrorKind::BrokenPipe), 128 + 13);
        assert_eq!(unwritten(io::ErrorKind::StorageFull), FAILURE);
        let wrapped = anyhow::Error::from(Unwritten::ReaderGone).context("the table");
        assert_eq!(exit_code(&wrapped), 128 + 13, "whatever was being written");
    }
}
