//! The promises no single room can keep: see `tests/`.
