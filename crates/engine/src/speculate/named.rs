//! Speculation as a person writes it.

use super::{Adaptive, Draft, Speculation};
use offramp_model::DraftHead;
use std::fmt;
use std::str::FromStr;

/// `auto`, `off`, or an exit layer and a draft length, `E:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speculate {
    /// Plain decoding.
    #[default]
    Off,
    /// As it turns out to pay.
    Auto,
    /// The same draft in every round.
    Fixed(Draft),
}

/// A text that is none of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("say auto, off, or an exit layer and a draft length, as 6:4")]
pub struct UnknownSpeculation;

impl FromStr for Speculate {
    type Err = UnknownSpeculation;

    fn from_str(text: &str) -> Result<Self, UnknownSpeculation> {
        let parts = || {
            let (exit_layer, num_speculations) = text.split_once(':')?;
            Some(Draft {
                exit_layer: exit_layer.parse().ok()?,
                num_speculations: num_speculations.parse().ok()?,
            })
        };
        match (text, parts()) {
            ("off", _) => Ok(Self::Off),
            ("auto", _) => Ok(Self::Auto),
            (_, Some(draft)) => Ok(Self::Fixed(draft)),
            _ => Err(UnknownSpeculation),
        }
    }
}

impl fmt::Display for Speculate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Auto => f.write_str("auto"),
            Self::Fixed(Draft { exit_layer, num_speculations }) => {
                write!(f, "{exit_layer}:{num_speculations}")
            }
        }
    }
}

impl Speculate {
    /// The policy, which drafts through `head` where that is given.
    pub fn speculation(self, head: Option<DraftHead>) -> Speculation {
        let speculation = match self {
            Self::Off => return Speculation::off(),
            Self::Auto => Speculation::auto(Adaptive::default()),
            Self::Fixed(draft) => Speculation::fixed(draft),
        };
        speculation.with_head(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_in_three_ways() {
        assert_eq!("auto".parse(), Ok(Speculate::Auto));
        assert_eq!("off".parse(), Ok(Speculate::Off));
        let fixed = Speculate::Fixed(Draft { exit_layer: 6, num_speculations: 4 });
        assert_eq!("6:4".parse(), Ok(fixed));
        assert_eq!(fixed.to_string(), "6:4");
        for wrong in ["", "6", "6:", ":4", "a:b", "6:4:2", "on"] {
            assert!(wrong.parse::<Speculate>().is_err(), "{wrong}");
        }
    }
}
