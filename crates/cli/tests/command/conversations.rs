//! Requests that begin alike, as clients write them: each function gives three, one after the other.

use serde_json::{Value, json};

/// A path, and what is posted to it.
pub(crate) type Request = (&'static str, String);

pub(crate) const COMPLETIONS: &str = "/v1/completions";
const CHATS: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";

/// Longer than what is looked at of a body that nobody understands.
const HERON: &str = "You are a heron. You speak of fish, of frogs and of the river, and you are always kind to the \
                     children who come to see you. You never say no. You know every stone of the river, and \
                     every fish knows you. When it rains you stand on one leg and wait. You answer in a few words.";

/// How a client writes the text of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    Text,
    Parts,
}

/// All messages of a conversation up to each of three turns.
fn turns(number: usize, content: Content) -> [String; 3] {
    let said =
        |turn: usize| format!("Visitor {number} asks in turn {turn}: \"What does the heron eat today?\"");
    let asks = |turn: usize| match content {
        Content::Text => json!({ "role": "user", "content": said(turn) }),
        Content::Parts => json!({ "role": "user", "content": [{ "type": "text", "text": said(turn) }] }),
    };
    let answered = |turn: usize| json!({ "role": "assistant", "content": format!("Fish, {turn}.") });
    let messages = [asks(0), answered(0), asks(1), answered(1), asks(2)].map(|message| message.to_string());
    [1, 3, 5].map(|count| messages[..count].join(", "))
}

/// A system message that all conversations share, and the messages first.
pub(crate) fn chat_with_a_system_message(number: usize, content: Content) -> [Request; 3] {
    let system = json!({ "role": "system", "content": HERON });
    turns(number, content)
        .map(|turns| (CHATS, format!(r#"{{"messages": [{system}, {turns}], "max_tokens": 4}}"#)))
}

/// No system message, and the messages last, after fields that differ.
pub(crate) fn chat_without(number: usize, content: Content) -> [Request; 3] {
    let mut most = 3;
    turns(number, content).map(|turns| {
        most += 1;
        (CHATS, format!(r#"{{ "model" : "model" , "max_tokens" : {most} , "messages" : [ {turns} ] }}"#))
    })
}

/// Items of the newer interface, after instructions that all conversations share.
pub(crate) fn response(number: usize, content: Content) -> [Request; 3] {
    turns(number, content).map(|turns| {
        let head = format!(r#""instructions": "{HERON}", "max_output_tokens": 4"#);
        (RESPONSES, format!(r#"{{{head}, "input": [{turns}]}}"#))
    })
}

/// One text instead of items.
pub(crate) fn response_to_a_text(number: usize) -> [Request; 3] {
    let text = format!("\"Visitor {number}\" asks: what does the heron eat today?");
    [4, 5, 6].map(|most| (RESPONSES, json!({ "input": text, "max_output_tokens": most }).to_string()))
}

/// A prompt.
fn completion(prompt: Value) -> Request {
    (COMPLETIONS, json!({ "max_tokens": 1, "prompt": prompt }).to_string())
}

/// A long text that goes on in several ways.
pub(crate) fn prompt(number: usize) -> [Request; 3] {
    let beginning = format!("\"Story {number},\" said the heron, \"is about a fish.\" ").repeat(6);
    ["a", "Then it slept.", "\""].map(|rest| completion(json!(format!("{beginning}{rest}"))))
}

/// The same as token ids.
pub(crate) fn ids(number: usize) -> [Request; 3] {
    let beginning: Vec<usize> = (0..200).map(|index| 20 + (index * (number + 1)) % 900).collect();
    [7, 8, 9].map(|last| completion(json!([&beginning[..], &[last]].concat())))
}

/// Texts that have nothing in common but a key.
pub(crate) fn with_a_key(number: usize) -> [Request; 3] {
    ["Once", "There", "A"].map(|prompt| {
        let key = format!("visitor-{number}");
        (COMPLETIONS, json!({ "max_tokens": 1, "prompt": prompt, "prompt_cache_key": key }).to_string())
    })
}

/// A body that takes more than a system gives by itself.
pub(crate) fn long_body(number: usize) -> [Request; 3] {
    [40, 60, 100].map(|size| (COMPLETIONS, with_a_long_body(&format!("Story {number}."), size << 10)))
}

/// A request whose prompt is followed by so many bytes.
pub(crate) fn with_a_long_body(prompt: &str, bytes: usize) -> String {
    json!({ "max_tokens": 1, "prompt": prompt, "user": "x".repeat(bytes) }).to_string()
}
