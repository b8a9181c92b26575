//! The signals that end a command: Ctrl-C, SIGTERM, SIGHUP. A command ends at once, by that signal, and
//! removes its partial files. A training run saves first.

use crate::interrupt;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Prints a line about a signal that was heard.
type Say = Arc<dyn Fn(i32) + Send + Sync>;

/// Set by the first signal during a run that ends gently.
static STOP: AtomicBool = AtomicBool::new(false);
/// The number of that signal.
static STOPPED_BY: AtomicI32 = AtomicI32::new(0);
/// Set while a run would end gently.
static GENTLE: Mutex<Option<Say>> = Mutex::new(None);

/// While this value exists, the first signal sets a flag instead of ending the process. A Ctrl-C after it
/// ends the process.
pub(crate) struct EndsGently(());

impl EndsGently {
    /// `say` is called in its own thread, with the number of the signal.
    pub(crate) fn begin(say: impl Fn(i32) + Send + Sync + 'static) -> Self {
        *GENTLE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(say));
        Self(())
    }

    /// True after the first signal.
    pub(crate) fn flag(&self) -> &'static AtomicBool {
        &STOP
    }
}

impl Drop for EndsGently {
    fn drop(&mut self) {
        *GENTLE.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The exit code after a signal, as shells have it: 128 plus the signal's number.
pub(crate) fn stopped() -> Option<u8> {
    STOP.load(Ordering::Acquire).then(|| exit_code(STOPPED_BY.load(Ordering::Relaxed)))
}

fn exit_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// Installs the handlers.
pub(crate) fn listen() -> io::Result<()> {
    system::listen(heard)
}

fn heard(signal: i32) {
    if signal == SIGINT && interrupt::take() {
        return; // it stopped an answer
    }
    let gentle = GENTLE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(say) = gentle else { end(signal) };
    if !STOP.load(Ordering::Relaxed) {
        STOPPED_BY.store(signal, Ordering::Relaxed);
        STOP.store(true, Ordering::Release);
        // In its own thread: a terminal that blocks must not delay the next signal.
        let _ = thread::Builder::new().spawn(move || say(signal));
    } else if signal == SIGINT {
        // Only Ctrl-C counts a second time: a cluster's manager may send SIGTERM to a process group and to
        // each process.
        end(signal);
    }
}

/// Removes partial files and ends the process by the signal. A mere exit code would not end a shell's loop.
fn end(signal: i32) -> ! {
    offramp_files::abandon();
    // The system does not end the first process of a container by a signal that it does not handle.
    if process::id() != 1 {
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    process::exit(exit_code(signal).into())
}

#[cfg(unix)]
mod system {
    use super::{SIGINT, SIGTERM};
    use signal_hook::consts::SIGHUP;
    use signal_hook::iterator::Signals;
    use std::{fs, io, thread};

    pub(super) fn listen(heard: fn(i32)) -> io::Result<()> {
        let status = fs::read_to_string("/proc/self/status").ok();
        let ignored = |signal: &i32| is_ignored(status.as_deref(), *signal);
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !ignored(signal)))?;
        thread::Builder::new().name("signals".to_owned()).spawn(move || signals.forever().for_each(heard))?;
        Ok(())
    }

    /// Whether the process began with this signal ignored, as under `nohup` or in the background of a script.
    /// Such a signal stays ignored. Where the system does not say, SIGHUP is not handled.
    fn is_ignored(status: Option<&str>, signal: i32) -> bool {
        let line = status.and_then(|status| status.lines().find_map(|line| line.strip_prefix("SigIgn:")));
        let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.map_or(signal == SIGHUP, |mask| mask >> (signal - 1) & 1 == 1)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_ignored_is_read_from_the_systems_mask() {
            let nohup = Some("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n");
            assert!(is_ignored(nohup, SIGHUP) && !is_ignored(nohup, SIGINT) && !is_ignored(nohup, SIGTERM));
            let script = Some("SigIgn:\t0000000000000006\n");
            assert!(
                is_ignored(script, SIGINT) && !is_ignored(script, SIGHUP) && !is_ignored(script, SIGTERM)
            );
            for silent in [None, Some(""), Some("SigIgn:\tx\n")] {
                assert!(
                    is_ignored(silent, SIGHUP) && !is_ignored(silent, SIGINT) && !is_ignored(silent, SIGTERM)
                );
            }
        }
    }
}

/// A system whose only signal is Ctrl-C.
#[cfg(not(unix))]
mod system {
    use super::SIGINT;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;
    use std::{io, thread};

    pub(super) fn listen(heard: fn(i32)) -> io::Result<()> {
        let pressed = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGINT, Arc::clone(&pressed))?;
        let watch = move || {
            loop {
                thread::sleep(Duration::from_millis(50));
                if pressed.swap(false, Ordering::Relaxed) {
                    heard(SIGINT);
                }
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop)
    }
}
