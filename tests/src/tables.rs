//! The kernels tables: a process has one, so a test of every table is several runs.

use offramp_kernels::available;
use std::process::Command;

/// Asserts that a test of this file passes with every kernels table. The table is chosen once per process,
/// so each one gets its own run.
///
/// # Panics
/// If it does not, with what it said.
#[track_caller]
pub fn assert_passes_with_every_table(test: &str) {
    for table in available() {
        let run = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", test])
            .env("OFFRAMP_KERNELS", table.name)
            .output()
            .expect("a run");
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{}: {said}", table.name);
    }
}
