// A token is looked through: the page shows what every exit would have said.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { model, onPage } from "./browser.mjs";
import { replies, replyTo } from "./replies.mjs";
import { idle, options, write } from "./writing.mjs";

describe("through the layers", () => {
  const named = (token) => {
    const shown = token.replace(/\n/g, "↵").replace(/\t/g, "⇥");
    return token === "" ? "(nothing)" : shown.trim() === "" ? "␣" : shown.trim();
  };

  async function look(page, act) {
    const { sent, body } = await replyTo(page, "v1/exits", act);
    await page.waitForFunction(() => !document.getElementById("layers-result").hasAttribute("aria-busy"));
    return { said: JSON.parse(body), sent };
  }

  async function gridIs(page, said, { end }) {
    const positions = said.positions.filter((entry) => end || entry.token_id !== null);
    assert.equal(await page.locator(".grid tbody tr").count(), said.exit_layers.length);
    const shown = await page.locator(".grid td").evaluateAll((nodes) => nodes.map((node) => ({
      layer: Number(node.dataset.layer),
      position: Number(node.dataset.position),
      token: node.querySelector(".said").textContent,
      sure: Number(node.style.getPropertyValue("--sure")),
      settled: node.classList.contains("settled"),
      sign: node.querySelector(".sign")?.textContent.includes("◆") ?? false,
    })));
    const expected = said.exit_layers.flatMap((layer, row) => positions.map((entry) => {
      const [first] = entry.exits[row].top;
      const settled = entry.settled_at === layer;
      const sure = Number(Math.exp(first.logprob).toFixed(3));
      return { layer, position: entry.position, token: named(first.token), sure, settled, sign: settled };
    }));
    assert.deepEqual(shown, expected);
  }

  test("the grid is what /v1/exits says", async () => onPage({}, async (page) => {
    const answer = await write(page);
    const { said, sent } = await look(page, () => options(page).nth(9).click());
    const prompt = JSON.parse((await replies(page, "tokenize", 1))[0].body).tokens;
    const all = [...prompt, ...answer.depths.map((entry) => entry.token_id)];
    const at = prompt.length + 9;
    assert.equal(sent.from, at - 4);
    assert.deepEqual(sent.prompt, all.slice(0, at + 5));
    await gridIs(page, said, { end: false });
    const column = said.positions.find((entry) => entry.position === at);
    assert.equal(column.token_id, answer.depths[9].token_id);
    const verdict = await page.textContent("#verdict");
    assert.ok(verdict.includes(`“${named(column.token)}”`), verdict);
    if (column.settled_at < model.num_hidden_layers) assert.ok(verdict.includes(`made up its mind at layer ${column.settled_at} of`), verdict);
    const left = page.locator(`.grid td.left[data-position="${at}"]`);
    assert.equal(await left.getAttribute("data-layer"), String(answer.depths[9].depth));

    await page.click("summary");
    const rows = await page.locator(".candidates tbody tr").evaluateAll((nodes) => nodes.map((node) =>
      [...node.querySelectorAll("td[data-token]")].map((cell) => [Number(cell.dataset.token), cell.querySelector(".said").textContent])));
    assert.deepEqual(rows, column.exits.map((exit) => exit.top.map((choice) => [choice.token_id, named(choice.token)])));
  }));

  test("the last token also shows what comes next, and the first row leads on", async () => onPage({}, async (page) => {
    await write(page, 20);
    const last = await look(page, () => options(page).last().click());
    await gridIs(page, last.said, { end: true });
    assert.equal(last.said.positions.at(-1).token_id, null);
    assert.match(await page.locator(".grid thead button").last().textContent(), /next/);
    const before = last.said.positions[0].position;
    const earlier = await look(page, () => page.locator(`.grid thead button[data-position="${before}"]`).click());
    await gridIs(page, earlier.said, { end: earlier.sent.prompt.length === last.sent.prompt.length });
    assert.equal(await page.locator(".grid thead [aria-current=true]").getAttribute("data-position"), String(before));
    assert.ok(await page.locator(".grid thead [aria-current=true]").evaluate((node) => node === document.activeElement));
  }));

  test("a token of a column can be chosen, too", async () => onPage({}, async (page) => {
    await page.fill("#max-tokens", "20");
    await page.click("#depths-start");
    await idle(page, "depths");
    const { said } = await look(page, () => page.locator(".column").nth(2).locator("[role=option]").nth(3).click());
    await gridIs(page, said, { end: false });
  }));
});
