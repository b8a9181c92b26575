//! What drafts for the texts of a model: its head and its first layers, or copies of them in fewer bits.

use crate::Result;
use offramp_engine::{Draft, Speculate, Speculation};
use offramp_model::{DraftHead, DraftLayers, Format, Llama};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// The number format of what drafts: one that is named, or the model's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DraftFormat(Option<Format>);

impl DraftFormat {
    /// No copies.
    pub const OWN: Self = Self(None);

    /// The named format.
    pub fn named(self) -> Option<Format> {
        self.0
    }
}

impl FromStr for DraftFormat {
    type Err = offramp_model::UnknownFormat;

    fn from_str(name: &str) -> std::result::Result<Self, Self::Err> {
        Ok(Self(if name == "own" { None } else { Some(name.parse()?) }))
    }
}

/// The head and the layers that draft. Copies of layers are made when a text first asks for them, and all
/// texts share them.
#[derive(Debug)]
pub struct Drafts {
    model: Arc<Llama>,
    head: Option<DraftHead>,
    format: Option<DraftFormat>,
    made: Mutex<Option<DraftLayers>>,
}

impl Drafts {
    /// Drafts by `head`, or the model's own, and by layers in `format`. Where none is named, `auto` chooses
    /// between the model's own layers and int4 copies, and an exit is the model's own.
    pub fn new(model: &Arc<Llama>, head: Option<DraftHead>, format: Option<DraftFormat>) -> Self {
        Self { model: Arc::clone(model), head, format, made: Mutex::default() }
    }

    /// As [`Drafts::new`], by a copy of the head in the usual format.
    ///
    /// # Errors
    /// If there is no memory for the head.
    pub fn usual(model: &Arc<Llama>, format: Option<DraftFormat>) -> Result<Self> {
        let head = model.usual_draft_format().map(|format| model.draft_head(Some(format), None));
        Ok(Self::new(model, head.transpose()?, format))
    }

    /// The head that drafts, where it is not the model's.
    pub fn head(&self) -> Option<&DraftHead> {
        self.head.as_ref()
    }

    /// The speculation of a text.
    ///
    /// # Errors
    /// If the named format is ternary, the exit does not exist, or there is no memory for the copies.
    pub fn speculation(&self, how: Speculate) -> Result<Speculation> {
        if how == Speculate::Off {
            return Ok(Speculation::off());
        }
        Ok(how.speculation(self.head.clone()).with_layers(self.layers(how)?))
    }

    /// The layers that draft, where they are not the model's. Copies that nobody named are none where there
    /// is no memory for them.
    ///
    /// # Errors
    /// As [`Drafts::speculation`].
    pub fn layers(&self, how: Speculate) -> Result<Option<DraftLayers>> {
        let depth = self.model.config().num_hidden_layers;
        match (how, self.format) {
            (Speculate::Off, _) | (_, Some(DraftFormat(None))) | (Speculate::Fixed(_), None) => Ok(None),
            (Speculate::Fixed(Draft { exit_layer, .. }), Some(DraftFormat(Some(format)))) => {
                Ok(Some(self.make(exit_layer, format)?))
            }
            (Speculate::Auto, Some(DraftFormat(Some(format)))) => Ok(Some(self.make(depth, format)?)),
            (Speculate::Auto, None) => {
                Ok(self.model.usual_draft_layers().and_then(|format| self.make(depth, format).ok()))
            }
        }
    }

    /// At least the first `layers` layers in `format`.
    fn make(&self, layers: usize, format: Format) -> offramp_model::Result<DraftLayers> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref().filter(|made| made.layers() >= layers) {
            return Ok(made.clone());
        }
        Ok(made.insert(self.model.draft_layers(layers, format)?).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offramp_model::{Config, Formats};
    use std::path::Path;

    fn model(format: Format) -> Arc<Llama> {
        let config = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "vocab_size": 64,
            "num_hidden_layers": 4, "num_attention_heads": 2, "max_position_embeddings": 64}"#;
        let config = Config::from_json(config, Path::new("config.json")).unwrap();
        Arc::new(Llama::random(config, 1, &Formats::all(format)).unwrap())
    }

    fn exit(exit_layer: usize) -> Speculate {
        Speculate::Fixed(Draft { exit_layer, num_speculations: 2 })
    }

    #[test]
    fn copies_are_made_where_they_are_named_or_of_use() {
        let layers = |format, named: Option<&str>, how| {
            let named = named.map(|name| name.parse().unwrap());
            let drafts = Drafts::new(&model(format), None, named);
            drafts.layers(how).unwrap().map(|made| (made.layers(), made.format()))
        };
        let int4 = Some((4, Format::Int4));
        assert_eq!(layers(Format::Bf16, None, Speculate::Auto), int4);
        assert_eq!(layers(Format::Int4, None, Speculate::Auto), None, "fewer bits there are none");
        assert_eq!(layers(Format::Bf16, None, exit(2)), None);
        assert_eq!(layers(Format::Bf16, Some("int8"), exit(2)), Some((2, Format::Int8)));
        assert_eq!(layers(Format::Bf16, Some("int8"), Speculate::Auto), Some((4, Format::Int8)));
        assert_eq!(layers(Format::Bf16, Some("own"), Speculate::Auto), None);
        assert_eq!(layers(Format::Bf16, Some("int4"), Speculate::Off), None);
        assert!("int5".parse::<DraftFormat>().is_err());
    }

    #[test]
    fn texts_share_the_copies() {
        let drafts = Drafts::usual(&model(Format::F32), Some("int4".parse().unwrap())).unwrap();
        let id = |how| drafts.layers(how).unwrap().unwrap().id();
        let (two, one) = (id(exit(2)), id(exit(1)));
        assert_eq!(two, one);
        let all = id(Speculate::Auto);
        assert!(all != two && id(exit(2)) == all);
        assert!(drafts.head().is_some() && drafts.layers(exit(5)).is_err());
    }
}
