//! The arguments for what drafts: the draft head, and the layers.

use crate::stories::{self, Reading};
use anyhow::Result;
use offramp_model::{DraftHead, Format, Llama};
use offramp_pipeline::{DraftFormat, Drafts, Pipeline};
use offramp_text::most_used;
use std::path::PathBuf;

/// The most tokens of the corpus that are counted for a shortlist.
const COUNTED: u64 = 10_000_000;

/// The arguments for the draft head.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "draft_head_arguments")]
pub(crate) struct DraftHeadArguments {
    /// Number format of the draft head: own (the model's head), f32, bf16, int8, int4, q8_0 or q4_0
    /// [default: int4, if the model's head has more bits]
    #[arg(long, value_name = "F")]
    draft_head: Option<DraftFormat>,
    /// Draft only the N most frequent tokens of a text
    #[arg(long, value_name = "N")]
    draft_shortlist: Option<usize>,
    /// The text whose tokens are counted for the shortlist [default: the stories that come with offramp]
    #[arg(long, value_name = "PATH", requires = "draft_shortlist")]
    draft_corpus: Vec<PathBuf>,
}

/// The argument for the layers that draft.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(id = "draft_layers_arguments")]
pub(crate) struct DraftLayersArguments {
    /// Draft with copies of the first layers in this number format, such as int4; own: with the model's own.
    /// An exit may be the full depth, which drafts for any model [default: auto chooses between the model's
    /// own layers and int4; an exit that is named is the model's own]
    #[arg(long, value_name = "F")]
    pub(crate) draft_format: Option<DraftFormat>,
}

impl DraftLayersArguments {
    /// What drafts for a pipeline's model. Counting tokens for a shortlist may take time.
    pub(crate) fn make(
        self,
        head: &DraftHeadArguments,
        pipeline: &Pipeline,
        reading: &Reading,
    ) -> Result<Drafts> {
        Ok(Drafts::new(pipeline.model(), head.make(pipeline, reading)?, self.draft_format))
    }

    /// Whether copies are named to draft.
    pub(crate) fn are_copies(self) -> bool {
        self.draft_format.is_some_and(|format| format.named().is_some())
    }
}

impl DraftHeadArguments {
    /// The draft head; `None` for the model's own.
    pub(crate) fn make(&self, pipeline: &Pipeline, reading: &Reading) -> Result<Option<DraftHead>> {
        let model = pipeline.model();
        let format = self.format(model);
        let count = |count| {
            let corpus = stories::open(&self.draft_corpus, reading, pipeline.tokenizer(), COUNTED)?;
            anyhow::Ok(most_used(&corpus, count)?)
        };
        let shortlist = self.draft_shortlist.map(count).transpose()?;
        if format.is_none() && shortlist.is_none() {
            return Ok(None);
        }
        Ok(Some(model.draft_head(format, shortlist.as_deref())?))
    }

    /// The draft head with all rows, for made-up weights.
    pub(crate) fn make_whole(&self, model: &Llama) -> offramp_model::Result<Option<DraftHead>> {
        self.format(model).map(|format| model.draft_head(Some(format), None)).transpose()
    }

    /// Its format; `None` if that is the format of the model's head.
    fn format(&self, model: &Llama) -> Option<Format> {
        let own = model.formats().head.unwrap_or(Format::F32);
        let format = match self.draft_head {
            Some(format) => format.named(),
            None => model.usual_draft_format(),
        };
        format.filter(|&format| format != own)
    }
}
