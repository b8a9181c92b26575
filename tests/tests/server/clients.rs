//! Replies are what OpenAI's clients expect: another crate's types read them.

use super::chats::chat_server;
use async_openai::types::chat::{CreateChatCompletionResponse, CreateChatCompletionStreamResponse};
use async_openai::types::completions::CreateCompletionResponse;
use async_openai::types::models::ListModelResponse;
use async_openai::types::responses::{Response, ResponseStreamEvent};
use offramp_tests::http::{get, post};
use serde_json::json;

#[test]
fn another_crates_types_read_every_reply() {
    let server = chat_server();
    let models: ListModelResponse = serde_json::from_slice(&get(server.address, "/v1/models").body).unwrap();
    assert_eq!(models.data[0].id, "tinystories-24");

    let body = json!({ "prompt": "Once", "max_tokens": 5, "logprobs": 2, "echo": true });
    let reply = post(server.address, "/v1/completions", &body);
    let completion: CreateCompletionResponse = serde_json::from_slice(&reply.body).unwrap();
    assert!(completion.choices[0].text.starts_with("Once"));
    assert_eq!(completion.usage.unwrap().completion_tokens, 5);
    let mut streaming = body;
    streaming["stream"] = json!(true);
    for chunk in post(server.address, "/v1/completions", &streaming).chunks() {
        let chunk: CreateCompletionResponse = serde_json::from_value(chunk).unwrap();
        assert_eq!(chunk.choices.len(), 1);
    }

    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 5, "logprobs": true,
        "top_logprobs": 2 });
    let reply = post(server.address, "/v1/chat/completions", &body);
    let chat: CreateChatCompletionResponse = serde_json::from_slice(&reply.body).unwrap();
    assert!(chat.choices[0].message.content.is_some());
    let mut streaming = body;
    streaming["stream"] = json!(true);
    streaming["stream_options"] = json!({ "include_usage": true });
    for chunk in post(server.address, "/v1/chat/completions", &streaming).chunks() {
        let _: CreateChatCompletionStreamResponse = serde_json::from_value(chunk).unwrap();
    }

    let body = json!({ "input": "Hi", "max_output_tokens": 5 });
    let reply = post(server.address, "/v1/responses", &body);
    let response: Response = serde_json::from_slice(&reply.body).unwrap();
    assert!(response.output_text().is_some());
    let mut streaming = body;
    streaming["stream"] = json!(true);
    let events = post(server.address, "/v1/responses", &streaming).events();
    for (name, data) in &events {
        let event: ResponseStreamEvent =
            serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        drop(event);
        assert!(data.contains(&format!("\"type\":\"{}\"", name.as_deref().unwrap())));
    }
    assert!(events.len() > 6);
}
