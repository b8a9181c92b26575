//! The methods of Python's `str`, `list` and `dict` that `minijinja-contrib` lacks or defines differently.
//! For all others `minijinja-contrib` is called.

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::python;

/// Called for every method that a value does not have itself.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let answer = match value.kind() {
        ValueKind::String if method == "format" => {
            charge_format(state, value.as_str().unwrap_or_default(), args)?;
            None
        }
        ValueKind::String => string_method(state, value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Seq => list_method(value, method, args)?,
        ValueKind::Map if method == "copy" => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        _ => None,
    };
    match answer {
        Some(answer) => Ok(answer),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Counts steps for the text that `str.format` makes: every width in it, and its longest argument for every
/// field.
fn charge_format(state: &State, format: &str, args: &[Value]) -> Result<(), Error> {
    let mut longest = 0;
    for argument in args {
        let text = python::text(state, argument)?;
        longest = longest.max(text.as_deref().or(argument.as_str()).map_or(32, str::len) as u64);
    }
    let widths = format.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widths = widths.map(|digits| digits.parse().unwrap_or(u64::MAX)).fold(0, u64::saturating_add);
    let fields = format.matches('{').count() as u64;
    state.consume_fuel(widths.saturating_add(fields.saturating_mul(longest + 64)) / 64)
}

fn list_method(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "copy" => {
            let () = from_args(args)?;
            Ok(Some(value.clone()))
        }
        "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            for (index, item) in value.try_iter()?.checked().enumerate() {
                if item? == *wanted {
                    return Ok(Some(Value::from(index)));
                }
            }
            Err(invalid(format!("list.index: {wanted} is not in the list")))
        }
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse" => {
            Err(invalid(format!("list.{method}: a template may not change a list")))
        }
        _ => Ok(None),
    }
}

/// Python's `str.isspace` for one character.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

fn string_method(state: &State, s: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    // Each of these makes a few copies of its text at most.
    state.consume_fuel((s.len() / 32) as u64)?;
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => Value::from(strip(s, method, args)?),
        "splitlines" => {
            let (keep, options): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = options.get::<Option<bool>>("keepends")?.or(keep).unwrap_or(false);
            options.assert_all_used()?;
            lines(s, keep)
        }
        "split" | "rsplit" => return split(s, method, args),
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(s.strip_prefix(prefix).unwrap_or(s))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(s.strip_suffix(suffix).unwrap_or(s))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            partition(s, separator, method == "rpartition")?
        }
        "ljust" | "rjust" | "center" | "zfill" => Value::from(justify(state, s, method, args)?),
        "index" | "rindex" => {
            let (wanted,): (&str,) = from_args(args)?;
            let found = if method == "index" { s.find(wanted) } else { s.rfind(wanted) };
            let found = found.ok_or_else(|| invalid(format!("str.{method}: substring not found")))?;
            Value::from(s[..found].chars().count())
        }
        "swapcase" => {
            let () = from_args(args)?;
            Value::from(s.chars().map(swapped).collect::<String>())
        }
        "title" => {
            let () = from_args(args)?;
            Value::from(title(s))
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(s.to_lowercase())
        }
        _ => return Ok(None),
    }))
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn strip<'a>(s: &'a str, method: &str, args: &[Value]) -> Result<&'a str, Error> {
    let (set,): (Option<Value>,) = from_args(args)?;
    let set = match &set {
        Some(set) if !set.is_none() => {
            Some(set.as_str().ok_or_else(|| invalid(format!("str.{method}: the characters are a text")))?)
        }
        _ => None,
    };
    let stripped = |c: char| set.map_or_else(|| is_space(c), |set| set.contains(c));
    Ok(match method {
        "strip" => s.trim_matches(stripped),
        "lstrip" => s.trim_start_matches(stripped),
        _ => s.trim_end_matches(stripped),
    })
}

/// `str.split` and `str.rsplit`.
fn split(s: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let (separator, limit, options): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = options.get::<Option<Value>>("sep")?.or(separator).filter(|value| !value.is_none());
    let limit = options.get::<Option<i64>>("maxsplit")?.or(limit).unwrap_or(-1);
    options.assert_all_used()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX - 1);
    let from_end = method == "rsplit";
    let parts: Vec<&str> = match &separator {
        None => split_spaces(s, limit, from_end),
        Some(separator) => {
            let separator = separator.as_str().filter(|separator| !separator.is_empty());
            let separator = separator.ok_or_else(|| invalid(format!("str.{method}: empty separator")))?;
            if from_end {
                let mut parts = s.rsplitn(limit + 1, separator).collect::<Vec<_>>();
                parts.reverse();
                parts
            } else {
                s.splitn(limit + 1, separator).collect()
            }
        }
    };
    Ok(Some(Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>())))
}

/// Splits at white space, at most `limit` times; the rest is one word.
fn split_spaces(s: &str, limit: usize, from_end: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = s.trim_matches(is_space);
    while !rest.is_empty() && parts.len() < limit {
        let found = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = found else { break };
        if from_end {
            parts.push(rest[at..].trim_start_matches(is_space));
            rest = rest[..at].trim_end_matches(is_space);
        } else {
            parts.push(&rest[..at]);
            rest = rest[at..].trim_start_matches(is_space);
        }
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    if from_end {
        parts.reverse();
    }
    parts
}

/// `str.splitlines`, which also splits at line ends other than `\n`.
fn lines(s: &str, keep: bool) -> Value {
    let mut lines = Vec::new();
    let mut rest = s;
    while let Some(at) = rest.find(is_line_end) {
        let end = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(Value::from(&rest[..if keep { at + end } else { at }]));
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    Value::from(lines)
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn partition(s: &str, separator: &str, from_end: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(invalid("str.partition: empty separator".to_owned()));
    }
    let parts = match if from_end { s.rsplit_once(separator) } else { s.split_once(separator) } {
        Some((before, after)) => [before, separator, after],
        None if from_end => ["", "", s],
        None => [s, "", ""],
    };
    Ok(Value::from(minijinja::value::Tuple::from(parts.map(Value::from))))
}

/// `str.ljust`, `str.rjust`, `str.center` and `str.zfill`.
fn justify(state: &State, s: &str, method: &str, args: &[Value]) -> Result<String, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let mut fill = fill.unwrap_or(" ").chars();
    let (Some(fill), None) = (fill.next(), fill.next()) else {
        return Err(invalid(format!("str.{method}: the fill is one character")));
    };
    let length = s.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(length);
    state.consume_fuel((missing / 16) as u64)?;
    let pad = |count: usize, c: char| std::iter::repeat_n(c, count).collect::<String>();
    Ok(match method {
        "ljust" => format!("{s}{}", pad(missing, fill)),
        "rjust" => format!("{}{s}", pad(missing, fill)),
        "center" => {
            let width = length + missing;
            // If an odd number is missing, CPython puts the odd one to the left for an odd width.
            let left = missing / 2 + (missing & width & 1);
            format!("{}{s}{}", pad(left, fill), pad(missing - left, fill))
        }
        _ => {
            let signed = usize::from(s.starts_with(['-', '+']));
            format!("{}{}{}", &s[..signed], pad(missing, '0'), &s[signed..])
        }
    })
}

fn swapped(c: char) -> char {
    let mut other: Box<dyn Iterator<Item = char>> =
        if c.is_lowercase() { Box::new(c.to_uppercase()) } else { Box::new(c.to_lowercase()) };
    other.next().unwrap_or(c)
}

/// `str.title`: a capital after everything that is not a letter.
fn title(s: &str) -> String {
    let mut titled = String::with_capacity(s.len());
    let mut within = false;
    for c in s.chars() {
        if within {
            titled.extend(c.to_lowercase());
        } else {
            titled.extend(c.to_uppercase());
        }
        within = c.is_alphabetic();
    }
    titled
}
