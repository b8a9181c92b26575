//! Names on the hub: `ORG/NAME[@REVISION][:FILE-OR-QUANTIZATION]`.

use crate::address::is_inner;
use std::fmt;

/// How addresses of the hub begin.
const ADDRESSES: [&str; 4] =
    ["https://huggingface.co/", "http://huggingface.co/", "huggingface.co/", "hf://"];
/// The longest organization or name that the hub allows.
const MAX_PART: usize = 96;
/// The revision that is meant where none is named.
const MAIN: &str = "main";

/// A model on the hub, or one file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// Whose it is.
    pub organization: String,
    /// Its name.
    pub name: String,
    /// A branch, a tag or a commit; none: `main`.
    pub revision: Option<String>,
    /// A file of the model, or a quantization such as `Q4_K_M`.
    pub file: Option<String>,
}

impl Id {
    /// The model that a text names, or none if it is no such name. Addresses of pages are understood too:
    /// `https://huggingface.co/ORG/NAME/blob/main/FILE`.
    pub fn parse(text: &str) -> Option<Self> {
        let address = ADDRESSES.iter().find_map(|address| text.strip_prefix(address));
        let (organization, rest) = address.unwrap_or(text).trim_end_matches('/').split_once('/')?;
        let end = rest.find(['@', ':', '/']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let (revision, file) = match rest.chars().next() {
            None => (None, None),
            Some('/') => of_page(rest).filter(|_| address.is_some())?,
            Some(_) => behind(rest)?,
        };
        let id = Self {
            organization: organization.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
        };
        let inner = [&id.revision, &id.file].into_iter().flatten().all(|part| is_inner(part));
        (is_plain(organization) && is_plain(name) && inner).then_some(id)
    }

    /// `ORG/NAME`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.organization, self.name)
    }

    /// The revision that is meant.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// The name of its folder in the cache.
    pub fn folder(&self) -> String {
        format!("models--{}--{}", self.organization, self.name)
    }

    /// The model of a folder in the cache, `models--ORG--NAME`.
    pub fn of_folder(folder: &str) -> Option<Self> {
        Self::parse(&folder.strip_prefix("models--")?.replacen("--", "/", 1))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.organization, self.name)?;
        self.revision.iter().try_for_each(|revision| write!(formatter, "@{revision}"))?;
        self.file.iter().try_for_each(|file| write!(formatter, ":{file}"))
    }
}

/// Revision and file.
type Parts<'a> = (Option<&'a str>, Option<&'a str>);

/// What stands behind the name: `@REVISION`, `:FILE`, or both in this order.
fn behind(rest: &str) -> Option<Parts<'_>> {
    let (revision, file) = match rest.split_once(':') {
        Some((revision, file)) => (revision, Some(file)),
        None => (rest, None),
    };
    let revision = if revision.is_empty() { None } else { Some(revision.strip_prefix('@')?) };
    Some((revision, file))
}

/// What stands behind the name in the address of a page: `/tree/REVISION`, `/blob/REVISION/FILE`.
fn of_page(rest: &str) -> Option<Parts<'_>> {
    let (kind, rest) = rest[1..].split_once('/')?;
    match kind {
        "tree" => Some((Some(rest), None)),
        "blob" | "resolve" => {
            let (revision, file) = rest.split_once('/')?;
            Some((Some(revision), Some(file.split(['?', '#']).next()?)))
        }
        _ => None,
    }
}

/// Whether the hub allows such an organization or name.
fn is_plain(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    part.len() <= MAX_PART
        && part.bytes().all(allowed)
        && part.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && !part.contains("--")
        && !part.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_revisions_and_files_are_read_and_written() {
        for (text, revision, file) in [
            ("org/name", "main", None),
            ("org/na.me-2_b@v1.0", "v1.0", None),
            ("org/name:Q4_K_M", "main", Some("Q4_K_M")),
            ("org/name@refs/pr/3:sub/a file.gguf", "refs/pr/3", Some("sub/a file.gguf")),
        ] {
            let id = Id::parse(text).unwrap();
            assert_eq!((id.revision(), id.file.as_deref()), (revision, file), "{text}");
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn addresses_of_pages_are_names_too() {
        for (text, name) in [
            ("https://huggingface.co/org/name", "org/name"),
            ("https://huggingface.co/org/name/", "org/name"),
            ("hf://org/name@v2", "org/name@v2"),
            ("huggingface.co/org/name/tree/v2", "org/name@v2"),
            ("https://huggingface.co/org/name/blob/main/a.gguf", "org/name@main:a.gguf"),
            ("https://huggingface.co/org/name/resolve/main/a/b.gguf?download=true", "org/name@main:a/b.gguf"),
        ] {
            assert_eq!(Id::parse(text).unwrap().to_string(), name, "{text}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_name() {
        for text in [
            "",
            "name",
            "/name",
            "org/",
            "a/b/c",
            "../name",
            "org/..",
            "org/a--b",
            "org/name@",
            "org/name:",
            "org/name@../x",
            "org/name@/x",
            "org/name:../../x",
            "org/name:a//b",
            "org/name:a\\b",
            "org/na me",
            "org/name@a\n",
            "./org/name",
            "~/x",
            "org/name@a/./b",
            "org/name:C:x",
        ] {
            assert_eq!(Id::parse(text), None, "{text:?}");
        }
    }
}
