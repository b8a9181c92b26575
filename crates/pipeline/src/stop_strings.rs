//! Stop strings. A text ends before one; no part of it is ever shown.

use crate::{Error, Result};
use offramp_engine::Origin;

/// Holds back text that may become a stop string.
#[derive(Debug)]
pub(crate) struct StopStrings {
    strings: Vec<String>,
    held: Vec<(String, Origin)>,
}

/// Text that may be shown now.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Shown {
    /// Parts, each with the origin of its token.
    pub(crate) parts: Vec<(String, Origin)>,
    /// The stop string that was found.
    pub(crate) stopped: Option<String>,
}

impl StopStrings {
    pub(crate) fn new(strings: &[String]) -> Result<Self> {
        match strings.iter().any(String::is_empty) {
            true => Err(Error::EmptyStopString),
            false => Ok(Self { strings: strings.to_vec(), held: Vec::new() }),
        }
    }

    /// Takes more text and returns the part that is certain. After a stop nothing is returned.
    pub(crate) fn push(&mut self, text: String, origin: Origin) -> Shown {
        if !text.is_empty() {
            self.held.push((text, origin));
        }
        let text: String = self.held.iter().map(|(text, _)| text.as_str()).collect();
        let found = self.strings.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop)));
        if let Some((place, stop)) = found.min_by_key(|&(place, stop)| (place, stop.len())) {
            let stopped = Some(stop.clone());
            let parts = self.take(place);
            self.held.clear();
            return Shown { parts, stopped };
        }
        Shown { parts: self.take(text.len() - self.beginnings(&text)), stopped: None }
    }

    /// Ends the text and returns the part that was held back.
    pub(crate) fn finish(&mut self) -> Vec<(String, Origin)> {
        std::mem::take(&mut self.held)
    }

    /// The length in bytes of the longest end of `text` with which a stop string begins.
    fn beginnings(&self, text: &str) -> usize {
        let of = |stop: &String| {
            let mut ends = stop.char_indices().map(|(end, _)| end).rev();
            ends.find(|&end| text.ends_with(&stop[..end])).unwrap_or(0)
        };
        self.strings.iter().map(of).max().unwrap_or(0)
    }

    /// Removes the first `bytes` from the held text.
    fn take(&mut self, bytes: usize) -> Vec<(String, Origin)> {
        let mut left = bytes;
        let mut parts = Vec::new();
        while left > 0 {
            let (first, origin) = &mut self.held[0];
            if first.len() <= left {
                left -= first.len();
                parts.push(self.held.remove(0));
            } else {
                let rest = first.split_off(left);
                parts.push((std::mem::replace(first, rest), *origin));
                left = 0;
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All text that is shown of `pieces`, and the stop string that was found.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut strings = StopStrings::new(&stops).unwrap();
        let mut shown = String::new();
        for &piece in pieces {
            let Shown { parts, stopped } = strings.push(piece.to_owned(), Origin::Chosen);
            parts.iter().for_each(|(text, _)| shown.push_str(text));
            assert!(stops.iter().all(|stop| !shown.contains(stop.as_str())), "{shown:?}");
            if stopped.is_some() {
                return (shown, stopped);
            }
        }
        strings.finish().iter().for_each(|(text, _)| shown.push_str(text));
        (shown, None)
    }

    #[test]
    fn a_stop_split_over_tokens_is_not_shown() {
        let stop = Some("</end>".to_owned());
        assert_eq!(run(&["</end>"], &["a", "b<", "/e", "nd", ">c"]), ("ab".into(), stop.clone()));
        assert_eq!(run(&["</end>"], &["</end>"]), (String::new(), stop.clone()));
        assert_eq!(run(&["</end>"], &["<</", "<</end>x"]), ("<</<".into(), stop));
        let two = run(&["\n\n", "END"], &["x\n", "yEN", "D\n\n"]);
        assert_eq!(two, ("x\ny".into(), Some("END".into())));
    }

    #[test]
    fn what_was_held_back_in_vain_is_shown() {
        assert_eq!(run(&["</end>"], &["a</", "en", "try>"]), ("a</entry>".into(), None));
        assert_eq!(run(&["</end>"], &["a</en"]), ("a</en".into(), None));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), None));
    }

    #[test]
    fn parts_keep_their_origin() {
        let mut strings = StopStrings::new(&["xyz".to_owned()]).unwrap();
        assert_eq!(strings.push("ax".into(), Origin::Accepted).parts, [("a".into(), Origin::Accepted)]);
        let parts = strings.push("b".into(), Origin::Corrected).parts;
        assert_eq!(parts, [("x".into(), Origin::Accepted), ("b".into(), Origin::Corrected)]);
        assert!(matches!(StopStrings::new(&[String::new()]), Err(Error::EmptyStopString)));
    }

    proptest! {
        /// However a text is divided into pieces, it is shown up to the stop string that is complete first.
        #[test]
        fn pieces_do_not_matter(
            text in "[ab☃]{0,24}",
            stops in prop::collection::vec("[ab☃]{1,4}", 0..3),
            cuts in prop::collection::vec(0usize..24, 0..8),
        ) {
            let letters: Vec<char> = text.chars().collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(letters.len())).collect();
            cuts.extend([0, letters.len()]);
            cuts.sort_unstable();
            let pieces: Vec<String> =
                cuts.windows(2).map(|pair| letters[pair[0]..pair[1]].iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = (1..=text.len()).filter(|&end| text.is_char_boundary(end));
            // Letter by letter: the first position at which the text ends with a stop string.
            let first = whole.clone().find(|&end| stops.iter().any(|stop| text[..end].ends_with(stop)));
            let (shown, stopped) = run(&stops, &pieces);
            match first {
                None => prop_assert_eq!((shown, stopped), (text, None)),
                Some(end) => {
                    // A piece with several stop strings is cut at the one that begins first.
                    prop_assert!(stopped.is_some() && text.starts_with(&shown) && shown.len() < end);
                }
            }
        }
    }
}
