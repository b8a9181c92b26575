//! Measures speculation: every exit and draft length, and the adaptive policy, beside plain decoding. Also
//! checks that the texts are equal.

mod agreeing;
mod openings;
mod sweep;
mod verify;

pub use agreeing::{Agreeing, AgreeingOptions, MakeHead, Texts, agreeing};
pub use openings::openings;
pub use sweep::{AutoPoint, ChosenExit, SweepOptions, SweepPoint, SweepReport, Verdict, sweep, swept_exits};
pub use verify::{Difference, NamedSpeculation, VerifyReport, verify};
