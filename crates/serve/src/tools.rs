//! Calls of tools in an answer, in the formats of the families that write them.

use offramp_pipeline::ChatTemplate;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// How a family writes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3, SmolLM3.
    Hermes,
    /// `[{"name": …, "arguments": {…}}]`, after a special token `[TOOL_CALLS]`: Mistral.
    Mistral,
    /// `{"name": …, "parameters": {…}}` alone, perhaps after `<|python_tag|>`: Llama 3.1 and 3.2.
    Llama3,
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ToolCall {
    pub(crate) id: String,
    pub(crate) r#type: &'static str,
    pub(crate) function: FunctionCall,
}

/// The function, and its arguments as JSON text.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct FunctionCall {
    pub(crate) name: String,
    pub(crate) arguments: String,
}

impl ToolFormat {
    /// The format that a template teaches; `None` if it is unknown.
    pub(crate) fn of(template: &ChatTemplate) -> Option<Self> {
        if template.contains(OPEN) {
            Some(Self::Hermes)
        } else if template.contains("[TOOL_CALLS]") {
            Some(Self::Mistral)
        } else if template.contains("<|python_tag|>") || template.contains("Environment: ipython") {
            Some(Self::Llama3)
        } else {
            None
        }
    }

    /// How much of a growing answer is certainly text, in bytes. Of the whole answer, the text that
    /// [`ToolFormat::read`] returns begins with it.
    pub(crate) fn certain(self, text: &str) -> usize {
        match self {
            // White space before a call is not part of the text.
            Self::Hermes => {
                let place = text.find(OPEN).unwrap_or_else(|| {
                    let ends = (1..OPEN.len()).rev().find(|&end| text.ends_with(&OPEN[..end]));
                    text.len() - ends.unwrap_or(0)
                });
                text[..place].trim_end().len()
            }
            // These begin the answer or do not come.
            Self::Mistral | Self::Llama3 => match text.trim_start().chars().next() {
                None | Some('[' | '{') => 0,
                Some('<') if "<|python_tag|>".starts_with(text.trim()) || text.contains("<|python_tag|>") => {
                    0
                }
                Some(_) => text.len(),
            },
        }
    }

    /// Divides an answer into its text and its calls. What is no well-formed call stays text.
    pub(crate) fn read(self, text: &str) -> (String, Vec<ToolCall>) {
        let whole = text.trim();
        let calls = match self {
            Self::Hermes => return hermes(text),
            Self::Mistral => {
                let list = whole.strip_prefix("[TOOL_CALLS]").unwrap_or(whole).trim();
                serde_json::from_str::<Vec<Value>>(list).ok().and_then(|list| list.iter().map(call).collect())
            }
            Self::Llama3 => {
                let object = whole.strip_prefix("<|python_tag|>").unwrap_or(whole);
                let parts = object.split("; ").map(|part| serde_json::from_str::<Value>(part.trim()).ok());
                parts.map(|part| part.as_ref().and_then(call)).collect::<Option<Vec<_>>>()
            }
        };
        match calls {
            Some(calls) if !calls.is_empty() => (String::new(), calls),
            _ => (text.to_owned(), Vec::new()),
        }
    }
}

fn hermes(text: &str) -> (String, Vec<ToolCall>) {
    let Some((before, _)) = text.split_once(OPEN) else { return (text.to_owned(), Vec::new()) };
    let (mut others, mut calls, mut rest) = (String::new(), Vec::new(), &text[before.len()..]);
    while let Some((between, after)) = rest.split_once(OPEN) {
        others.push_str(between);
        let (inner, next) = after.split_once(CLOSE).unwrap_or((after, ""));
        match serde_json::from_str::<Value>(inner.trim()).ok().as_ref().and_then(call) {
            Some(found) => calls.push(found),
            None => others.push_str(&rest[between.len()..rest.len() - next.len()]),
        }
        rest = next;
    }
    others.push_str(rest);
    if calls.is_empty() {
        return (text.to_owned(), calls);
    }
    let others = if others.trim().is_empty() { "" } else { &others };
    (format!("{}{others}", before.trim_end()), calls)
}

/// An object with a name and arguments.
fn call(value: &Value) -> Option<ToolCall> {
    let name = value.get("name")?.as_str()?.to_owned();
    let arguments = value.get("arguments").or_else(|| value.get("parameters"))?;
    let arguments = match arguments {
        Value::String(text) => text.clone(),
        Value::Object(_) => arguments.to_string(),
        _ => return None,
    };
    let id = format!("call_{:024x}", rand::random::<u128>() >> 32);
    Some(ToolCall { id, r#type: "function", function: FunctionCall { name, arguments } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: ToolFormat, text: &str) -> (String, Vec<(String, String)>) {
        let (content, calls) = format.read(text);
        (content, calls.into_iter().map(|call| (call.function.name, call.function.arguments)).collect())
    }

    #[test]
    fn every_family_writes_calls_in_its_own_way() {
        let weather = || vec![("weather".to_owned(), r#"{"city":"Oslo"}"#.to_owned())];
        let inner = r#"{"name": "weather", "arguments": {"city": "Oslo"}}"#;
        let hermes = format!("I look.\n<tool_call>\n{inner}\n</tool_call>");
        assert_eq!(read(ToolFormat::Hermes, &hermes), ("I look.".to_owned(), weather()));
        let twice = format!("<tool_call>{inner}</tool_call>\n<tool_call>{inner}</tool_call>");
        assert_eq!(read(ToolFormat::Hermes, &twice).1.len(), 2);
        assert_eq!(read(ToolFormat::Mistral, &format!(" [{inner}]")), (String::new(), weather()));
        let llama = r#"{"name": "weather", "parameters": {"city": "Oslo"}}"#;
        assert_eq!(read(ToolFormat::Llama3, llama), (String::new(), weather()));
        assert_eq!(read(ToolFormat::Llama3, &format!("<|python_tag|>{llama}; {llama}")).1.len(), 2);
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for format in [ToolFormat::Hermes, ToolFormat::Mistral, ToolFormat::Llama3] {
            for text in [
                "Hello.",
                "{\"a\": 1}",
                "[1, 2]",
                "<tool_call>{\"name\": 3}</tool_call> x",
                "<tool_call>{",
                "",
            ] {
                assert_eq!(read(format, text), (text.to_owned(), Vec::new()), "{format:?}");
            }
        }
    }

    #[test]
    fn text_is_held_back_only_where_it_may_become_a_call() {
        assert_eq!(ToolFormat::Hermes.certain("Hi <tool"), 2);
        assert_eq!(ToolFormat::Hermes.certain("Hi <tool_call>{"), 2);
        assert_eq!(ToolFormat::Hermes.certain("Hi <b>"), 6);
        assert_eq!(ToolFormat::Llama3.certain("  {\"name\""), 0);
        assert_eq!(ToolFormat::Llama3.certain("<|pyth"), 0);
        assert_eq!(ToolFormat::Llama3.certain("Hello"), 5);
        assert_eq!(ToolFormat::Mistral.certain("[{"), 0);
    }

    #[test]
    fn what_was_shown_on_the_way_begins_the_text() {
        let call = r#"{"name": "weather", "arguments": {"city": "Oslo"}}"#;
        let hermes = format!("<tool_call>{call}</tool_call>");
        for answer in [
            format!("  é{hermes}日"),
            format!("Sure: \n\n {hermes} \n{hermes}\n"),
            format!("{hermes} and then {hermes}"),
            format!("Sure: {call}"),
            format!(" {call}"),
            format!("[{call}]"),
            format!("<tool_call>{call}"),
            "a <tool_call>{</tool_call> b ".to_owned(),
            "<|python_tag|>print(1)".to_owned(),
            " \n ".to_owned(),
        ] {
            for format in [ToolFormat::Hermes, ToolFormat::Mistral, ToolFormat::Llama3] {
                let (content, _) = format.read(&answer);
                for end in (0..=answer.len()).filter(|&end| answer.is_char_boundary(end)) {
                    let shown = &answer[..format.certain(&answer[..end])];
                    assert!(
                        content.starts_with(shown),
                        "{format:?}: {answer:?}: {shown:?}, then {content:?}"
                    );
                }
            }
        }
    }
}
