//! What speculation is worth: every exit and draft length beside plain decoding, and where the adaptive policy lands;
//! and whether the text is the same.

mod agreeing;
mod openings;
mod sweep;
mod verify;

pub use agreeing::{Agreeing, MakeHead, Texts, agreeing};
pub use openings::openings;
pub use sweep::{AutoPoint, ChosenExit, SweepOptions, SweepPoint, SweepReport, sweep};
pub use verify::{Difference, VerifyReport, Way, verify};
