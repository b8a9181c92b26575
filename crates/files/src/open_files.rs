//! How many files and sockets this process may have open.

/// Allows as many as the system lets this user have: what a process begins with is often 1024. Where that is
/// not possible, nothing changes.
#[cfg(unix)]
pub fn allow_many_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Allows as many as the system lets this user have.
#[cfg(not(unix))]
pub fn allow_many_open_files() {}
