//! The server's promises, over a socket. The carried model runs in this process, and what an answer should be
//! comes from the pipeline, one text at a time.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

mod server {
    mod access;
    mod cancelled;
    mod chats;
    mod clients;
    mod ending;
    mod exits;
    mod hostile;
    mod refusals;
    mod same_text;
    mod scores;
    mod streams;
}
