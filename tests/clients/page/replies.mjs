// What the server replied to the page: kept in the page as it reads it, and read from there.

import assert from "node:assert/strict";

/** Keeps a copy of every reply that the page reads, as the page reads it. */
export function keepReplies() {
  const fetched = window.fetch;
  window.replies = [];
  window.fetch = async (path, init) => {
    const reply = await fetched(path, init);
    const entry = { path, sent: init.body ? JSON.parse(init.body) : null, body: null };
    window.replies.push(entry);
    reply.clone().text().then((body) => { entry.body = body; }, () => {}); // a stopped reply has no whole body
    return reply;
  };
}

/** The whole replies of an address, oldest first; waits until there are as many as wanted. */
export async function replies(page, path, wanted) {
  const handle = await page.waitForFunction(([at, count]) => {
    const whole = window.replies.filter((entry) => entry.path === at && entry.body !== null);
    return whole.length >= count && whole;
  }, [path, wanted]);
  return handle.jsonValue();
}

const countOf = (page, path) => page.evaluate((at) => window.replies.filter((entry) => entry.path === at && entry.body !== null).length, path);

/** Does something, and returns the reply that the page got for it. */
export async function replyTo(page, path, act) {
  const before = await countOf(page, path);
  await act();
  return (await replies(page, path, before + 1)).at(-1);
}

/** A streamed reply: its text, its tokens, what was asked. */
export function streamed({ sent, body }) {
  const lines = body.split(/\r?\n/).filter((line) => line.startsWith("data: "));
  assert.equal(lines.at(-1), "data: [DONE]");
  const chunks = lines.slice(0, -1).map((line) => JSON.parse(line.slice(6)));
  const choices = chunks.flatMap((chunk) => chunk.choices.slice(0, 1));
  return {
    sent,
    text: choices.map((choice) => choice.text ?? choice.delta?.content ?? "").join(""),
    depths: choices.flatMap((choice) => choice.depths ?? []),
    timings: chunks.findLast((chunk) => chunk.timings)?.timings,
  };
}
