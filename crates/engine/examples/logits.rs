//! Logits of given tokens at every exit, for programs to compare with theirs:
//! `cargo run --release -p offramp-engine --example logits -- MODEL_FOLDER 5,17,3 > logits.f32`.
//!
//! Little-endian `f32`, `[exits, tokens, vocab]`: exit 1 first, every token's row. Computed in `f32`,
//! whatever the folder holds; ternary layers are what they are.

use offramp_engine::{Session, Workspace};
use offramp_model::{Config, Format, Formats, Llama};
use std::error::Error;
use std::io::{BufWriter, Write, stdout};
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, tokens] = &arguments[..] else {
        return Err("give a model folder and token ids, separated by commas".into());
    };
    let tokens = tokens.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let config = Config::read(&Path::new(folder).join("config.json"))?;
    let layers = config.bit_linear.is_none().then_some(Format::F32);
    let formats = Formats { layers, head: Some(Format::F32), ..Formats::default() };
    let model = Arc::new(Llama::load(Path::new(folder), &formats)?);
    let mut session = Session::new(&model, tokens.len())?;
    let mut out = BufWriter::new(stdout().lock());
    for exit_layer in 1..=model.config().num_hidden_layers {
        session.truncate(0);
        session.set_exit_layer(exit_layer)?;
        for logit in session.feed_each(&tokens, &mut Workspace::new())? {
            out.write_all(&logit.to_le_bytes())?;
        }
    }
    Ok(out.flush()?)
}
