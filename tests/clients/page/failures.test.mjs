// Whatever fails, the page says so in a sentence.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { onPage } from "./browser.mjs";
import { idle, options, write } from "./writing.mjs";

describe("failures are sentences", () => {
  const failing = (body) => onPage({ failures: true }, body);

  async function problem(page, part = "write") {
    await page.click(`#${part}-start`);
    await page.waitForSelector(`#${part}-problem:not(:empty)`);
    await idle(page, part);
    const text = await page.textContent(`#${part}-problem`);
    assert.match(text, /^[A-Z“].*[.!?]$/, "a sentence");
    assert.equal(await page.locator(`#${part}-problem`).getAttribute("role"), "alert");
    return text;
  }

  test("a request that the server refuses", () => failing(async (page) => {
    let said;
    await page.route("**/v1/completions", async (route) => {
      const reply = await route.fetch({ postData: { ...route.request().postDataJSON(), agreement: undefined, exit_layer: 99 } });
      assert.equal(reply.status(), 400);
      said = (await reply.json()).error.message;
      await route.fulfill({ response: reply });
    });
    const text = await problem(page);
    assert.match(text, /^The server cannot do that\./);
    assert.ok(text.toLowerCase().includes(said.toLowerCase()), `${text} has “${said}”`);
    await problem(page, "depths");
    await page.unroute("**/v1/completions");
    await write(page, 5);
    assert.equal(await page.textContent("#write-problem"), "", "the sentence goes with the next text");
  }));

  test("a server that is gone", () => failing(async (page, context) => {
    await write(page, 5);
    await context.setOffline(true);
    await options(page).first().click();
    await page.waitForSelector("#layers-problem:not(:empty)");
    assert.match(await problem(page), /^The server does not answer\./);
    await context.setOffline(false);
    await write(page, 5);
  }));

  const PIECE = 'data: {"choices":[{"index":0,"text":" ran","depths":[{"token_id":5,"token":" ran","depth":3,"origin":"chosen"}]}]}\n\n';
  const failures = {
    "a stream that breaks off": [{ contentType: "text/event-stream", body: PIECE }, /broke off/],
    "an error in the middle of a stream": [
      { contentType: "text/event-stream", body: `${PIECE}event: error\ndata: {"error":{"message":"the memory is full"}}\n\n` },
      /^The server gave up in the middle of the text\. The memory is full\.$/],
    "a busy server": [{ status: 429, headers: { "retry-after": "3" }, json: { error: { message: "queue full" } } },
      /^The server is busy with other texts\. Please try again in 3 seconds\.$/],
    "a server that is not ready": [{ status: 503, json: { error: { message: "the model is loading" } } },
      /^The server is not ready\. The model is loading\./],
    "a text that is too long": [
      { status: 400, json: { error: { message: "at most 512 tokens", code: "context_length_exceeded" } } }, /^That text is too long\. At most 512 tokens\.$/],
    "a failure without a word": [{ status: 500, body: "" }, /^The server failed with status 500\./],
  };
  for (const [name, [reply, expected]] of Object.entries(failures)) {
    test(name, () => failing(async (page) => {
      await page.route("**/v1/completions", (route) => route.fulfill(reply));
      assert.match(await problem(page), expected);
    }));
  }

  test("a server that wants a key", () => failing(async (page) => {
    await page.route("**/v1/models", (route) =>
      route.request().headers().authorization === "Bearer open sesame"
        ? route.continue()
        : route.fulfill({ status: 401, json: { error: { message: "no key" } } }));
    await page.reload();
    await page.waitForSelector("#key-form:visible");
    assert.match(await page.textContent("#start-problem"), /wants a key/);
    await page.fill("#key", "open sesame");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#write-start:visible");
    assert.ok(await page.locator("#key-form").isHidden());
  }));
});
