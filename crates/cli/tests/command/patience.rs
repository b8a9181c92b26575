//! Waits for processes with a time limit: one that hangs is killed, and its test fails.

use crate::place::Place;
use std::fs;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Much longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// The exit status.
#[track_caller]
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it hangs: {child:?}");
        }
        sleep(Duration::from_millis(2));
    }
}

/// Waits until a condition holds that `child` should bring about.
#[track_caller]
pub(crate) fn until(child: &mut Child, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before that");
        assert!(began.elapsed() < LIMIT, "it never comes");
        sleep(Duration::from_millis(1));
    }
}

pub(crate) fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Starts the command with its streams in the files `NAME.out` and `NAME.err`. Signals are reset: a test
/// runner in a script's background may ignore some.
pub(crate) fn started(place: &Place, name: &str, arguments: &[&str]) -> Child {
    let own = place.command(arguments);
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,HUP,TERM").arg(own.get_program()).args(own.get_args());
    command.current_dir(place.path("")).env_remove("OFFRAMP_KERNELS").stdin(Stdio::null());
    command.stdout(fs::File::create(place.path(&format!("{name}.out"))).unwrap());
    command.stderr(fs::File::create(place.path(&format!("{name}.err"))).unwrap());
    command.spawn().unwrap()
}

/// What a process has written to a file so far.
pub(crate) fn told(place: &Place, file: &str) -> String {
    fs::read_to_string(place.path(file)).unwrap_or_default()
}
