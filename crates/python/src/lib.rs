//! The Python package `offramp`, as far as it is Rust: `offramp.native`. The Python layer beside it gives
//! everything its names, its defaults and its documentation.

mod errors;
mod fork;
mod interruptible;
mod loaded;
mod measures;
mod model;
mod options;
mod stream;
mod tokenizer;
mod training;
mod worker;

use pyo3::prelude::*;

/// offramp's core.
#[pymodule(gil_used = false)]
mod native {
    #[pymodule_export]
    use crate::fork::forked;
    #[pymodule_export]
    use crate::measures::{benchmark, card, evaluate, export_gguf, quantize, sweep};
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::stream::Stream;
    #[pymodule_export]
    use crate::tokenizer::PyTokenizer;
    #[pymodule_export]
    use crate::training::train;
    use pyo3::prelude::*;

    /// The name of the instruction set in use.
    #[pyfunction]
    fn kernels() -> &'static str {
        offramp_engine::kernels()
    }

    /// Threads that share the work.
    #[pyfunction]
    fn threads() -> usize {
        offramp_engine::threads()
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
