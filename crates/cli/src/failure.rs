//! Which errors are a user's mistake and which are a failure: exit code 2, and 1.

use std::io;
use std::process::ExitCode;

const FAILURE: u8 = 1;
const MISTAKE: u8 = 2;

/// Says in one line what went wrong, and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // One line, whatever a library's message was.
    let message = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
    eprintln!("error: {message}");
    ExitCode::from(exit_code(error))
}

/// What the disk or the arithmetic did is a failure; all else came from what the user gave.
fn exit_code(error: &anyhow::Error) -> u8 {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        is_text_failure(error) || is_model_failure(error) || is_train_failure(error) || is_run_failure(error)
    };
    // An I/O error that no room put into words is stdout's.
    if error.chain().any(failed) || error.is::<io::Error>() { FAILURE } else { MISTAKE }
}

/// Whether a file that is there could not be read. One that is not there is a mistake.
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
    use offramp_model::Error::{Read, Write};
    match error.downcast_ref() {
        Some(Read { source, .. }) => is_reading(source),
        Some(Write { .. }) => true,
        _ => false,
    }
}

fn is_train_failure(error: &(dyn std::error::Error + 'static)) -> bool {
    use offramp_train::Error::{Diverged, Model, Read, Text, Write};
    match error.downcast_ref() {
        Some(Read { source, .. }) => is_reading(source),
        Some(Write { .. } | Diverged { .. }) => true,
        // Transparent: such an error does not stand in the chain itself.
        Some(Model(error)) => is_model_failure(error),
        Some(Text(error)) => is_text_failure(error),
        _ => false,
    }
}

fn is_run_failure(error: &(dyn std::error::Error + 'static)) -> bool {
    let engine = |error: &offramp_engine::Error| match error {
        offramp_engine::Error::NotFinite { .. } => true,
        offramp_engine::Error::Model(error) => is_model_failure(error),
        _ => false,
    };
    match error.downcast_ref() {
        Some(offramp_eval::Error::Engine(error)) => engine(error),
        Some(offramp_eval::Error::Model(error)) => is_model_failure(error),
        Some(offramp_eval::Error::Text(error)) => is_text_failure(error),
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
    fn a_full_disk_is_a_failure_and_a_wrong_path_a_mistake() {
        let path = PathBuf::from("x");
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(code(offramp_text::Error::Write { path: path.clone(), source: full() }), FAILURE);
        let nested = offramp_model::Error::Write { path: path.clone(), source: full() };
        assert_eq!(code(offramp_train::Error::from(nested)), FAILURE);
        assert_eq!(code(offramp_train::Error::Diverged { step: 3, in_a_row: 10 }), FAILURE);
        assert_eq!(code(offramp_engine::Error::NotFinite { position: 0 }), FAILURE);
        assert_eq!(code(offramp_model::Error::Read { path: path.clone(), source: missing() }), MISTAKE);
        let torn = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(code(offramp_model::Error::Read { path, source: torn }), FAILURE);
        assert_eq!(code(offramp_model::Error::ExitLayer { found: 25, layers: 24 }), MISTAKE);
        assert_eq!(code(anyhow::anyhow!("--split is neither")), MISTAKE);
    }
}
