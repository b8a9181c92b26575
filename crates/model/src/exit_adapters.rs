//! Exits over a model that stays as it is: each has a norm and a small adapter of its own before the shared
//! LM head, in a file beside the model's (`exits.safetensors`). The model's own files are untouched, so that
//! whoever does not know the file loads the model as before (Jamialahmadi et al. 2025, "Balcony",
//! arXiv:2503.05005, freezes the base so; its exits have a whole layer each).
//!
//! With the state `h` after so many layers, `z = norm(h)` and the logits are
//! `lm_head · (z + up_proj · silu(down_proj · z))`: an adapter as in Houlsby et al. 2019, arXiv:1902.00751.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::linear::Linear;
use crate::norm::RmsNorm;
use crate::run_folder::EXITS;
use crate::source::storage;
use crate::tensor::TensorSpec;
use crate::weights::Weights;
use crate::work::Work;
use offramp_kernels::Operand;
use offramp_kernels::ternary::InputQuantization;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// The adapters of a model's exits.
#[derive(Clone, Debug)]
pub(crate) struct ExitAdapters(BTreeMap<usize, Adapter>); // by exit layer

#[derive(Clone, Debug)]
struct Adapter {
    norm: RmsNorm,
    down_proj: Linear, // [rank, hidden]
    up_proj: Linear,   // [hidden, rank]
}

/// The tensors of an exit's adapter: its norm, `down_proj` and `up_proj`.
pub fn exit_adapter_tensors(exit_layer: usize, hidden_size: usize, rank: usize) -> [TensorSpec; 3] {
    let spec =
        |part: &str, shape: &[usize]| TensorSpec::new(format!("exits.{exit_layer}.{part}.weight"), shape);
    [
        spec("norm", &[hidden_size]),
        spec("down_proj", &[rank, hidden_size]),
        spec("up_proj", &[hidden_size, rank]),
    ]
}

/// The exit of a tensor's name, if it is an adapter's.
fn exit_of(name: &str) -> Option<usize> {
    name.strip_prefix("exits.")?.split_once('.')?.0.parse().ok()
}

impl ExitAdapters {
    /// Those of a model folder, if it has any.
    pub(crate) fn read(folder: &Path, config: &Config) -> Result<Option<Self>> {
        let path = folder.join(EXITS);
        if !path.exists() {
            return Ok(None);
        }
        let file = Weights::single(&path)?;
        let mut adapters = BTreeMap::new();
        for (name, shape) in file.shapes() {
            let exit = exit_of(name).filter(|exit| (1..config.num_hidden_layers).contains(exit));
            let Some(exit_layer) = exit else {
                let (path, tensor) = (path.clone(), name.to_owned());
                return Err(Error::UnexpectedTensor { path, tensor, shape: shape.to_vec() });
            };
            if name.ends_with("down_proj.weight") {
                let rank = shape.first().copied().unwrap_or(0).max(1);
                adapters.insert(exit_layer, exit_adapter_tensors(exit_layer, config.hidden_size, rank));
            }
        }
        let specs: Vec<_> = adapters.values().flatten().cloned().collect();
        let file = Weights::open_file(&path, &specs)?;
        let adapter = |(exit_layer, [norm, down_proj, up_proj]): (usize, [TensorSpec; 3])| {
            let input = InputQuantization::ALL[0];
            let linear = |spec: &TensorSpec| Linear::take(&file, spec, Some(Format::F32), input);
            let weight = storage(&file, &norm, Format::F32)?;
            let norm = RmsNorm { weight, eps: config.rms_norm_eps as f32 };
            let (down_proj, up_proj) = (linear(&down_proj)?, linear(&up_proj)?);
            Ok((exit_layer, Adapter { norm, down_proj, up_proj }))
        };
        let all = adapters.into_iter().map(adapter).collect::<Result<BTreeMap<_, _>>>()?;
        Ok((!all.is_empty()).then_some(Self(all)))
    }

    /// The exits that have one, shallow first.
    pub(crate) fn exits(&self) -> impl Iterator<Item = usize> {
        self.0.keys().copied()
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.values().map(Adapter::bytes).sum()
    }

    /// Appends to `out` what the LM head reads of some rows that stand at `depth`, and returns the work of
    /// that; none, and nothing is appended, where no adapter stands at that depth.
    pub(crate) fn append(
        &self,
        depth: usize,
        stream: &[f32],
        buffers: &mut AdapterBuffers,
        out: &mut Vec<f32>,
    ) -> Option<Work> {
        let adapter = self.0.get(&depth)?;
        let AdapterBuffers { normed, inner, added, operand } = buffers;
        adapter.norm.forward(stream, normed);
        adapter.down_proj.forward(normed, operand, inner);
        inner.iter_mut().for_each(|x| *x /= 1.0 + (-*x).exp());
        adapter.up_proj.forward(inner, operand, added);
        out.extend(normed.iter().zip(&*added).map(|(z, more)| z + more));
        let weights = (adapter.down_proj.weights() + adapter.up_proj.weights()) as u64;
        let tokens = (stream.len() / adapter.down_proj.in_features()) as u64;
        Some(Work { bytes: adapter.bytes(), operations: 2 * weights * tokens })
    }
}

impl Adapter {
    fn bytes(&self) -> u64 {
        self.norm.bytes() + self.down_proj.bytes() + self.up_proj.bytes()
    }
}

/// Buffers of [`ExitAdapters::append`].
#[derive(Clone, Debug, Default)]
pub(crate) struct AdapterBuffers {
    normed: Vec<f32>,
    inner: Vec<f32>,
    added: Vec<f32>,
    operand: Operand,
}

/// Neighbours that stand at the same depth.
pub(crate) fn runs(depths: &[usize]) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut first = 0;
    depths.chunk_by(|a, b| a == b).map(move |same| {
        let rows = first..first + same.len();
        first = rows.end;
        (same[0], rows)
    })
}
