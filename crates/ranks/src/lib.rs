//! Several processes of one run: who this one is, and the sums and copies that training needs of all of them.
//!
//! [`Ranks`] is one process of a run. Sums are made by a fixed tree, neighbours first ([`tree`]), whatever
//! the library underneath would choose: `MPI_Allreduce` may bracket a sum as it likes, and then another
//! number of processes gives other bits. A [`Fold`] adds by the same tree within a process. So a run whose
//! parts are folded within processes and then across them has the bits of one process that folds all, as long
//! as each process has a power of two of them.
//!
//! There are two engines: a process alone, and MPI by the standard ABI of MPI 5.0, which is loaded when a
//! launcher (`mpirun`, `srun`) has started the program. Nothing is needed to build it. With the feature
//! `mpi`, which is off by default, the program is linked instead with the MPI whose `mpicc` the build finds
//! (`MPICC` names it): for Open MPI 4 and 5 and MPICH 4, which lack that ABI. A third engine, [`threads`], is
//! for tests.

#[cfg(not(feature = "mpi"))]
mod abi;
mod alone;
mod engine;
mod error;
mod fold;
mod launch;
#[cfg(feature = "mpi")]
mod linked;
mod patience;
mod places;
mod ranks;
mod threads;

pub use engine::Engine;
pub use error::{Error, Result};
pub use fold::{Add, Fold, tree};
pub use launch::on_this_machine;
pub use patience::computes_beside;
pub use ranks::{Ranks, Share, Watch};
pub use threads::threads;
