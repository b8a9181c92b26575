//! Tests of several crates together: see `tests/`. This file holds what these tests share.

pub mod corpus;
pub mod golden;
pub mod http;
pub mod repository;
pub mod server;
pub mod tables;
pub mod training;
