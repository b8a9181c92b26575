//! Everything that can go wrong in this room, each in one line that says what to do about it.

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a process that a launcher started cannot be one of several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no MPI library with the standard ABI.
    #[error(
        "this process was started as one of several ({launcher}), and no MPI library with the ABI of MPI 5.0 is found \
         ({tried}): install one (`pip install mpich`, whose mpirun is then the one to use), name it in OFFRAMP_MPI, or build \
         offramp with the feature `mpi` for the library that this mpirun came with"
    )]
    NoLibrary {
        /// The variable that tells.
        launcher: String,
        /// What the system said of each name.
        tried: String,
    },
    /// The library lacks a function.
    #[error(
        "the MPI library {library} lacks a function of the ABI of MPI 5.0 ({reason}): use another one, or name it in OFFRAMP_MPI"
    )]
    NotTheAbi {
        /// Its name.
        library: String,
        /// What the system said.
        reason: String,
    },
    /// The library sees fewer processes than the launcher started.
    #[error(
        "the launcher started {started} processes ({launcher}), and the MPI library {library} sees {seen}: use the mpirun \
         that came with it"
    )]
    AnotherLauncher {
        /// The variable that tells.
        launcher: String,
        /// Processes by the launcher.
        started: usize,
        /// Processes by the library.
        seen: usize,
        /// The library.
        library: String,
    },
    /// The library must not be called from a thread of its own.
    #[error(
        "the MPI library {library} is built without threads, and gradients are exchanged by a thread of their own: use \
         another library"
    )]
    Threads {
        /// Its name.
        library: String,
    },
    /// A function of the library failed.
    #[error("{function} of MPI failed with code {code}: look at the launcher's own message")]
    Failed {
        /// Its name.
        function: &'static str,
        /// What it returned.
        code: i32,
    },
}
