//! A chat template: it gives a text or a fault, in bounded time and memory, whatever the program in it does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::{answer, begin, hold};
use offramp_pipeline::{ChatTemplate, Json, Message, RenderOptions, TemplateClock};

/// What two million steps may hold.
const MOST_BYTES: usize = 512 << 20;

fuzz_target!(init: begin(), |data: &[u8]| hold(MOST_BYTES, || read(data)));

fn read(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Some(template) = answer(ChatTemplate::from_source("chat_template.jinja", source)) else { return };
    let template = template.with_special_token("bos_token", "<s>").with_special_token("eos_token", "</s>");
    let clock = TemplateClock::fixed("2024-07-26T09:05:03").expect("a moment");
    let call = r#"{"role": "assistant", "content": null, "tool_calls": [{"type": "function",
        "function": {"name": "look", "arguments": {"at": "h\u00e9n"}}}]}"#;
    let messages = [
        Message::new("system", "Be kind."),
        Message::new("user", "Hi <b>\u{1f600}\n"),
        serde_json::from_str(call).expect("a message"),
        Message::new("assistant", "  <think>a</think> Hello  "),
    ];
    let tools = r#"[{"type": "function", "function": {"name": "look", "parameters": {"at": 1.5}}}]"#;
    let options = RenderOptions {
        tools: Some(Json::parse(tools).expect("JSON")),
        add_generation_prompt: true,
        clock,
        ..RenderOptions::default()
    };
    let first = answer(template.render(&messages, &options));
    assert_eq!(answer(template.render(&messages, &options)), first, "not the same twice");
    let options = RenderOptions { continue_final_message: true, clock, ..RenderOptions::default() };
    answer(template.render(&messages[..2], &options));
}
