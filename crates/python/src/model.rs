//! A model, as Python sees it.

use crate::errors::{OrRaise, exception};
use crate::loaded::{Loaded, parsed, source};
use crate::options::TextOptions;
use crate::stream::Stream;
use crate::tokenizer::{Of, PyTokenizer};
use crate::worker::Worker;
use crate::{fork, interruptible};
use numpy::{PyArray1, PyArray3, PyArrayMethods};
use offramp_engine::SchedulerOptions;
use offramp_model::{CacheFormat, Config, Format, Formats};
use offramp_pipeline::{DraftFormat, Message, Pipeline, RenderOptions};
use pyo3::exceptions::PyValueError;
use pyo3::{Bound, FromPyObject, PyResult, Python, pyclass, pymethods};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

/// What `open` is told, as a dict.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
struct OpenOptions {
    dtype: Option<String>,
    head_dtype: Option<String>,
    kv_cache: String,
    draft_dtype: Option<String>,
    threads: Option<usize>,
    /// Bytes of keys and values of all texts.
    memory: u64,
    /// Texts that run at a time.
    max_texts: usize,
}

/// A language model that can be left early.
#[pyclass(frozen, module = "offramp.native")]
pub(crate) struct Model {
    pub(crate) loaded: Loaded,
    worker: Worker,
}

impl OpenOptions {
    fn formats(&self) -> PyResult<Formats> {
        let format = |name: &Option<String>| name.as_deref().map(parsed::<Format>).transpose();
        Ok(Formats {
            layers: format(&self.dtype)?,
            head: format(&self.head_dtype)?,
            kv_cache: parsed::<CacheFormat>(&self.kv_cache)?,
        })
    }

    /// As many positions as the memory holds, and as are of use.
    fn scheduler(&self, pipeline: &Pipeline) -> PyResult<SchedulerOptions> {
        let (model, config) = (pipeline.model(), pipeline.model().config());
        let position = model.kv_bytes_per_position(config.num_hidden_layers).max(1);
        let of_use = self.max_texts.saturating_mul(config.context());
        let positions = of_use.min(usize::try_from(self.memory / position).unwrap_or(usize::MAX));
        if positions == 0 {
            let memory = self.memory;
            return Err(PyValueError::new_err(format!(
                "memory is {memory} bytes, and the keys and values of one token take {position}: give more"
            )));
        }
        Ok(SchedulerOptions { max_num_seqs: self.max_texts, ..SchedulerOptions::new(positions) })
    }
}

#[pymethods]
impl Model {
    /// Loads a model folder or a run folder; without one, the model that comes with offramp.
    #[staticmethod]
    #[pyo3(signature = (path, options))]
    fn open(py: Python<'_>, path: Option<PathBuf>, options: OpenOptions) -> PyResult<Self> {
        fork::check()?;
        if let Some(threads) = options.threads {
            offramp_engine::set_threads(threads).or_raise()?;
        }
        let (source, formats) = (source(py, path)?, options.formats()?);
        let template = source.own_chat_template().or_raise()?;
        let pipeline = Arc::new(interruptible::run(py, |_| source.open(&formats))?.or_raise()?);
        let scheduler = options.scheduler(&pipeline)?;
        let worker = Worker::start(Arc::clone(&pipeline), scheduler)?.or_raise()?;
        let draft_format = options.draft_dtype.as_deref().map(parsed::<DraftFormat>).transpose()?;
        let (drafts, policies) = (OnceLock::new(), Mutex::default());
        Ok(Self { loaded: Loaded { pipeline, source, template, draft_format, drafts, policies }, worker })
    }

    /// Begins a text.
    fn start(&self, py: Python<'_>, prompt: Vec<u32>, options: TextOptions) -> PyResult<Stream> {
        fork::check()?;
        let request = options.request(py, &self.loaded, prompt)?;
        Ok(Stream(self.worker.add(request, &options.stop)?))
    }

    /// Logits of every position at some exits, `[exits, tokens, vocab]`.
    fn logits<'py>(
        &self,
        py: Python<'py>,
        ids: Vec<u32>,
        exits: Vec<usize>,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let model = self.loaded.pipeline.model();
        let shape = [exits.len(), ids.len(), model.config().vocab_size];
        array(py, shape, |stop| {
            offramp_engine::logits_at_exits(model, &ids, &exits, &mut |_| stop.leave_if_stopped())
        })
    }

    /// The states of every position at every depth, `[layers + 1, tokens, hidden]`.
    fn hidden_states<'py>(&self, py: Python<'py>, ids: Vec<u32>) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let model = self.loaded.pipeline.model();
        let shape = [model.config().num_hidden_layers + 1, ids.len(), model.config().hidden_size];
        array(py, shape, |stop| offramp_engine::hidden_states(model, &ids, &mut |_| stop.leave_if_stopped()))
    }

    /// Token ids of a prompt.
    fn encode(&self, text: &str) -> PyResult<Vec<u32>> {
        self.loaded.pipeline.encode(text, Default::default()).or_raise()
    }

    /// The prompt of a conversation, whose messages are a list as JSON, through the model's chat template.
    fn chat_prompt(&self, messages: &str) -> PyResult<Vec<u32>> {
        let wrong = |reason: String| PyValueError::new_err(format!("messages: {reason}"));
        let messages: Vec<Message> =
            serde_json::from_str(messages).map_err(|error| wrong(error.to_string()))?;
        let messages = messages.into_iter().map(|message| message.normalized().map_err(wrong));
        let messages = messages.collect::<PyResult<Vec<_>>>()?;
        let missing = || match self.loaded.source.chat_template() {
            Err(error) => exception(&error),
            Ok(_) => {
                PyValueError::new_err("the model's chat template appeared after it was loaded: load it again")
            }
        };
        let template = self.loaded.template.as_ref().ok_or_else(missing)?;
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        let text = template.render(&messages, &options).or_raise()?;
        self.loaded.pipeline.encode(&text, offramp_pipeline::PromptOptions::rendered()).or_raise()
    }

    /// The tokenizer.
    #[getter]
    fn tokenizer(&self) -> PyTokenizer {
        PyTokenizer(Of::Model(Arc::clone(&self.loaded.pipeline)))
    }

    /// The model's `config.json` as offramp writes it.
    #[getter]
    fn config_json(&self) -> String {
        self.loaded.pipeline.model().config().to_json()
    }

    #[getter]
    fn num_hidden_layers(&self) -> usize {
        self.loaded.pipeline.model().config().num_hidden_layers
    }

    /// Tokens of a text, its prompt among them.
    #[getter]
    fn context(&self) -> usize {
        self.loaded.pipeline.model().config().context()
    }

    /// The formats of the layers, the head, and keys and values.
    #[getter]
    fn formats(&self) -> (Option<&'static str>, Option<&'static str>, &'static str) {
        let Formats { layers, head, kv_cache } = self.loaded.pipeline.model().formats();
        (layers.map(Format::name), head.map(Format::name), kv_cache.name())
    }

    /// Where it came from.
    #[getter]
    fn name(&self) -> String {
        self.loaded.source.path().display().to_string()
    }

    /// Tokens that end a text.
    #[getter]
    fn stop_tokens(&self) -> Vec<u32> {
        self.loaded.pipeline.stop_tokens().to_vec()
    }

    /// Whether `generation_config.json` says how tokens are chosen.
    #[getter]
    fn says_how_to_sample(&self) -> bool {
        self.loaded.pipeline.says_how_to_sample()
    }

    /// The depths that a sweep and a table name where nobody does: each quarter.
    #[getter]
    fn quarters(&self) -> Vec<usize> {
        Config::quarters(self.num_hidden_layers())
    }
}

/// Computes an array, which takes the vector as it is.
fn array<'py, E: std::error::Error + Send + 'static>(
    py: Python<'py>,
    shape: [usize; 3],
    compute: impl FnOnce(&interruptible::Stop) -> Result<Vec<f32>, E> + Send,
) -> PyResult<Bound<'py, PyArray3<f32>>> {
    fork::check()?;
    let values = interruptible::run(py, compute)?.or_raise()?;
    PyArray1::from_vec(py, values).reshape(shape)
}
