//! The promises no single room can keep: see `tests/`. Here is only what those tests share.

pub mod corpus;
pub mod golden;
pub mod repository;
pub mod training;
