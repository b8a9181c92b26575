// The server's API. All addresses are relative to the page, and every failure is a Problem.

import { events } from "./events.js";
import { brokenOff, fromReply, midway, silence } from "./problem.js";

let key = null; // in memory only

/** From now on, requests carry this key. */
export function useKey(value) {
  key = value;
}

async function ask(path, { body, signal } = {}) {
  const headers = {};
  if (body) headers["content-type"] = "application/json";
  if (key) headers.authorization = `Bearer ${key}`;
  let reply;
  try {
    const method = body ? "POST" : "GET";
    reply = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw silence();
  }
  if (reply.ok) return reply;
  const problem = await fromReply(reply);
  if (problem.status === 401) document.dispatchEvent(new CustomEvent("key-wanted"));
  throw problem;
}

async function json(path, options) {
  const reply = await ask(path, options);
  try {
    return await reply.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw brokenOff();
  }
}

/** The model that the server runs. */
export async function firstModel() {
  const list = await json("v1/models");
  return list.data[0];
}

/** The ids of a prompt, or of a chat up to the answer. */
export async function tokenize(what, signal) {
  const body = what.messages ? { messages: what.messages, add_generation_prompt: true } : { prompt: what.prompt };
  return (await json("tokenize", { body, signal })).tokens;
}

/** What every exit would have said. */
export function exits(body, signal) {
  return json("v1/exits", { body, signal });
}

/**
 * Streams a text. Yields `{ ignored }` once where the server ignored fields, `{ text, depths }` for each piece, and
 * `{ timings, usage }` at the end.
 */
export async function* write(path, fields, signal) {
  const body = { ...fields, stream: true, stream_options: { include_usage: true }, return_depths: true };
  const reply = await ask(path, { body, signal });
  const ignored = reply.headers.get("x-offramp-ignored");
  if (ignored) yield { ignored };
  let whole = false;
  try {
    for await (const { name, data } of events(reply.body)) {
      whole ||= data === "[DONE]";
      if (whole) continue; // to the end of the reply, so that its connection can be used again
      const chunk = JSON.parse(data);
      if (name === "error" || chunk.error) throw midway(chunk.error);
      const choice = chunk.choices?.[0];
      if (choice) {
        const text = choice.text ?? choice.delta?.content ?? "";
        const depths = choice.depths ?? [];
        if (text || depths.length > 0) yield { text, depths };
      }
      if (chunk.timings || chunk.usage) yield { timings: chunk.timings, usage: chunk.usage };
    }
  } catch (error) {
    if (error.name === "AbortError" || error.name === "Problem") throw error;
  }
  if (!whole) throw brokenOff();
}
