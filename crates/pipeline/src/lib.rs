//! Text in, text out: a model with its tokenizer, as its folder's own files mean them.
