//! What the environment says: the variables of `huggingface_hub`.

use crate::cache::Cache;
use crate::error::{Error, Result};
use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const HUB: &str = "https://huggingface.co";
/// The timeouts of `huggingface_hub`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest token that is read.
const MAX_TOKEN: usize = 4096;

/// A secret that says who asks. It is not shown, not even for debugging.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// How the hub is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the hub is: `HF_ENDPOINT`.
    pub endpoint: String,
    /// `HF_TOKEN`, or the file of `hf auth login`.
    pub token: Option<Token>,
    /// Nothing is asked and nothing downloaded: `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// Where files are kept.
    pub cache: Cache,
    /// How long an answer may take to begin, and a stalled download may last.
    pub timeout: Duration,
    /// How long the first retry waits; each further one waits twice as long.
    pub pause: Duration,
    /// A file with the certificates to trust in place of Mozilla's: `SSL_CERT_FILE`.
    pub certificates: Option<PathBuf>,
}

impl Token {
    /// A token without the white space around it; none if nothing is left, or no header may hold it.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        (!text.is_empty() && text.len() <= MAX_TOKEN && printable).then(|| Self(text.to_owned()))
    }

    /// The header that carries it.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a token")
    }
}

impl Settings {
    /// The settings of this process.
    ///
    /// # Errors
    /// If `HF_ENDPOINT` is no address, or there is no place for the cache.
    pub fn from_environment() -> Result<Self> {
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::Endpoint { found: endpoint });
        }
        let seconds = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.parse().ok()).filter(|&s| s > 0);
        Ok(Self {
            endpoint,
            token: token(),
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
            cache: Cache::new(cache().ok_or(Error::NoCache)?, !is_set("HF_HUB_DISABLE_SYMLINKS")),
            timeout: seconds.map_or(TIMEOUT, Duration::from_secs),
            pause: Duration::from_secs(1),
            certificates: ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
                .into_iter()
                .find_map(place)
                .filter(|path| path.is_file()),
        })
    }
}

/// A variable that is there and not empty.
fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a variable says yes.
fn is_set(name: &str) -> bool {
    text(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
}

/// A variable with a path. `~/` is the home folder.
fn place(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(name).filter(|value| !value.is_empty())?);
    match path.strip_prefix("~") {
        Ok(rest) => Some(home()?.join(rest)),
        Err(_) => Some(path),
    }
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").or_else(|| env::var_os("USERPROFILE")).filter(|home| !home.is_empty()).map(Into::into)
}

/// The folder of all that `huggingface_hub` keeps.
fn hub_home() -> Option<PathBuf> {
    let cache = || place("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")));
    place("HF_HOME").or_else(|| Some(cache()?.join("huggingface")))
}

fn cache() -> Option<PathBuf> {
    ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]
        .into_iter()
        .find_map(place)
        .or_else(|| Some(hub_home()?.join("hub")))
}

fn token() -> Option<Token> {
    if let Some(token) =
        ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| Token::new(&text(name)?))
    {
        return Some(token);
    }
    if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return None;
    }
    let path = place("HF_TOKEN_PATH").or_else(|| Some(hub_home()?.join("token")))?;
    read_token(&path)
}

fn read_token(path: &Path) -> Option<Token> {
    let small = fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= MAX_TOKEN as u64);
    small.then(|| Token::new(&fs::read_to_string(path).ok()?)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_is_not_shown() {
        let token = Token::new(" hf_secret\n").unwrap();
        assert_eq!(token.header(), "Bearer hf_secret");
        assert!(!format!("{token:?}").contains("secret"));
        for text in ["", " \n", "a b", "a\r\nHost: x", "ü", &"a".repeat(5000)] {
            assert_eq!(Token::new(text), None, "{text:?}");
        }
    }
}
