//! Prints values as Python's `str()` does: lists, dicts and floats.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// The deepest nesting of lists that is printed.
const DEPTH_LIMIT: usize = 500;

/// Python's `str(value)`, if it differs from the engine's; else `None`.
///
/// # Errors
///
/// If the value is nested too deeply, or the template has used all its steps.
pub(super) fn text(state: &State, value: &Value) -> Result<Option<String>, Error> {
    match value.kind() {
        ValueKind::Number if !value.is_integer() => {
            Ok(Some(float(f64::try_from(value.clone()).unwrap_or(f64::NAN))))
        }
        ValueKind::Seq | ValueKind::Map => {
            let mut printed = String::new();
            write_repr(state, value, 0, &mut printed)?;
            Ok(Some(printed))
        }
        _ => Ok(None),
    }
}

/// The filter `string`.
pub(super) fn string(state: &State, value: &Value) -> Result<Value, Error> {
    Ok(text(state, value)?.map_or_else(
        || if value.kind() == ValueKind::String { value.clone() } else { Value::from(value.to_string()) },
        Value::from,
    ))
}

/// The filter `escape`, with jinja2's character references.
pub(super) fn escape(state: &State, value: &Value) -> Result<String, Error> {
    let text = string(state, value)?.to_string();
    state.consume_fuel((text.len() / 16) as u64)?;
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    Ok(escaped)
}

/// Python's `repr(value)`.
fn write_repr(state: &State, value: &Value, depth: usize, printed: &mut String) -> Result<(), Error> {
    state.consume_fuel(1)?;
    if depth > DEPTH_LIMIT {
        let reason = format!("lists within lists deeper than {DEPTH_LIMIT} are not printed");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    match value.kind() {
        ValueKind::String => {
            let string = value.as_str().unwrap_or_default();
            state.consume_fuel((string.len() / 16) as u64)?;
            quoted(string, printed);
        }
        ValueKind::Number if !value.is_integer() => {
            printed.push_str(&float(f64::try_from(value.clone()).unwrap_or(f64::NAN)));
        }
        ValueKind::Undefined => printed.push_str("Undefined"),
        ValueKind::Seq => {
            let brackets = if value.is_tuple() { ['(', ')'] } else { ['[', ']'] };
            printed.push(brackets[0]);
            for (index, item) in value.try_iter()?.checked().enumerate() {
                printed.push_str(if index > 0 { ", " } else { "" });
                write_repr(state, &item?, depth + 1, printed)?;
            }
            printed.push_str(if value.is_tuple() && value.len() == Some(1) { "," } else { "" });
            printed.push(brackets[1]);
        }
        ValueKind::Map => {
            printed.push('{');
            let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
            for (index, (key, value)) in pairs.into_iter().flatten().enumerate() {
                printed.push_str(if index > 0 { ", " } else { "" });
                write_repr(state, &key, depth + 1, printed)?;
                printed.push_str(": ");
                write_repr(state, &value, depth + 1, printed)?;
            }
            printed.push('}');
        }
        _ => write!(printed, "{value}").unwrap_or_default(),
    }
    Ok(())
}

/// A string in single quotes, or in double quotes if that saves escapes.
fn quoted(string: &str, printed: &mut String) {
    let quote = if string.contains('\'') && !string.contains('"') { '"' } else { '\'' };
    printed.push(quote);
    for c in string.chars() {
        match c {
            '\\' => printed.push_str("\\\\"),
            '\n' => printed.push_str("\\n"),
            '\r' => printed.push_str("\\r"),
            '\t' => printed.push_str("\\t"),
            c if c == quote => printed.extend(['\\', c]),
            // Python escapes characters that do not print. Here these are control characters and spaces other
            // than ' '.
            c if c.is_control() || (c.is_whitespace() && c != ' ') => match u32::from(c) {
                code @ ..0x100 => write!(printed, "\\x{code:02x}").unwrap_or_default(),
                code => write!(printed, "\\u{code:04x}").unwrap_or_default(),
            },
            c => printed.push(c),
        }
    }
    printed.push(quote);
}

/// Python's `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16
/// on.
pub(super) fn float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let (digits, exponent) = format!("{number:e}").split_once('e').map_or_else(
            || (number.to_string(), 0),
            |(digits, exponent)| (digits.to_owned(), exponent.parse::<i32>().unwrap_or(0)),
        );
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let mut text = number.to_string();
    if !text.contains('.') {
        text.push_str(".0");
    }
    text
}
