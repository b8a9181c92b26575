// One text at four depths, at once or one after another.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { model, onPage } from "./browser.mjs";
import { replies, streamed } from "./replies.mjs";
import { idle } from "./writing.mjs";

describe("four depths", () => {
  const exits = () => [1, 3 / 4, 1 / 2, 1 / 4].map((part) => Math.round(model.num_hidden_layers * part));

  async function four(page) {
    const log = [];
    page.on("request", (request) => request.url().endsWith("/v1/completions") && log.push("asked"));
    page.on("requestfinished", (request) => request.url().endsWith("/v1/completions") && log.push("done"));
    await page.fill("#max-tokens", "50");
    await page.click("#depths-start");
    await idle(page, "depths");
    const answers = (await replies(page, "v1/completions", 4)).map(streamed);
    answers.sort((a, b) => b.sent.exit_layer - a.sent.exit_layer);
    assert.deepEqual(answers.map(({ sent }) => sent.exit_layer), exits());
    const columns = page.locator(".column");
    for (const [index, answer] of answers.entries()) {
      const column = columns.nth(index);
      assert.equal(await column.locator("[role=listbox]").evaluate((node) => node.textContent), answer.text);
      assert.match(await column.locator(".rate").textContent(), /^[\d,.]+ tokens\/s$/);
      const depths = await column.locator("[role=option]").evaluateAll((nodes) => nodes.map((node) => Number(node.dataset.depth)));
      assert.deepEqual(depths, answer.depths.map(({ depth }) => depth));
      assert.notEqual(await column.locator(".note").textContent(), "");
    }
    return log;
  }

  test("four columns stream at once", async () => onPage({}, async (page) => {
    await page.check("input[value=together]");
    const log = await four(page);
    assert.deepEqual(log.slice(0, 4), ["asked", "asked", "asked", "asked"]);
  }));

  test("four columns stream one after another", async () => onPage({}, async (page) => {
    const log = await four(page);
    assert.deepEqual(log, ["asked", "done", "asked", "done", "asked", "done", "asked", "done"]);
  }));

  test("a column's exit can be chosen", async () => onPage({}, async (page) => {
    const sent = [];
    page.on("request", (request) => {
      if (request.url().endsWith("/v1/completions")) sent.push(request.postDataJSON().exit_layer);
    });
    await page.selectOption("#column-3", "1");
    await page.fill("#max-tokens", "8");
    await page.click("#depths-start");
    await idle(page, "depths");
    assert.deepEqual(sent, [...exits().slice(0, 3), 1]);
  }));
});
