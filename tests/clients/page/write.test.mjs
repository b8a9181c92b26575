// A text is written: it streams, is coloured by where its tokens left, and can be stopped.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { OPENING, model, onPage } from "./browser.mjs";
import { replyTo, streamed } from "./replies.mjs";
import { idle, options, write } from "./writing.mjs";

const background = (locator) => locator.evaluate((node) => getComputedStyle(node).backgroundColor);

/** The page shows exactly what the server said. */
async function sameAsSaid(page, answer) {
  assert.equal(await page.locator("#text").evaluate((node) => node.textContent), answer.text);
  // Tokens that have no text of their own, such as parts of one character, are not shown one by one.
  if (answer.depths.map(({ token }) => token).join("") !== answer.text) return;
  const shown = await options(page).evaluateAll((nodes) => nodes.map((node) => [Number(node.dataset.depth), node.dataset.origin]));
  assert.deepEqual(shown, answer.depths.map(({ depth, origin }) => [depth, origin]));
}

describe("write", () => {
  test("an opening is typed, and the text streams", async () => onPage({}, async (page) => {
    await page.fill("#opening", "");
    await page.locator("#opening").pressSequentially(OPENING);
    await page.fill("#max-tokens", "200");
    await page.evaluate(() => {
      window.growth = [];
      new MutationObserver(() => window.growth.push(document.getElementById("text").textContent.length))
        .observe(document.getElementById("text"), { childList: true });
    });
    const answer = streamed(await replyTo(page, "v1/completions", () => page.click("#write-start")));
    await idle(page);
    assert.equal(answer.sent.prompt, OPENING);
    assert.equal(answer.sent.stream, true);
    assert.ok(answer.depths.length > 10, "a text of some length");
    await sameAsSaid(page, answer);
    const steps = new Set(await page.evaluate(() => window.growth));
    assert.ok(steps.size > 2, `the text grew ${steps.size} times only`);
    assert.match(await page.textContent("#write-status"), /^Done: \d+ tokens/);
    assert.equal(await page.textContent("#given"), OPENING);
  }));

  test("with an agreement, each token has the colour of the layer at which it left", async () => onPage({}, async (page) => {
    const answer = await write(page);
    assert.equal(answer.sent.agreement, 0.95);
    assert.ok(!("exit_layer" in answer.sent) && !("speculate" in answer.sent));
    await sameAsSaid(page, answer);
    assert.ok(new Set(answer.depths.map(({ depth }) => depth)).size > 1, "tokens leave at several layers");
    const colours = new Set();
    for (const [index, { depth, token }] of answer.depths.slice(0, 20).entries()) {
      if (token.includes("\n")) continue; // a line break has its colour on its sign
      const own = await background(options(page).nth(index));
      assert.equal(own, await background(page.locator(`#legend .swatch[data-layer="${depth}"]`)), `token ${index}, layer ${depth}`);
      colours.add(own);
      assert.match(await options(page).nth(index).getAttribute("title"), new RegExp(`left at layer ${depth} of ${model.num_hidden_layers}`));
    }
    assert.ok(colours.size > 1);
    const mean = answer.timings?.mean_depth ?? answer.depths.reduce((sum, { depth }) => sum + depth, 0) / answer.depths.length;
    assert.ok((await page.textContent("#meter")).includes(mean.toFixed(1)), "the meter shows the mean depth");
  }));

  test("a server that cannot keep an agreement does not offer it", async () => onPage({}, async (page) => {
    await page.route("**/v1/models", async (route) => {
      const reply = await route.fetch();
      const list = await reply.json();
      list.data[0].agreement = false;
      await route.fulfill({ response: reply, json: list });
    });
    await page.reload();
    await page.waitForSelector("#write-start:visible");
    assert.ok(await page.locator("input[value=sure]").isDisabled());
    assert.ok(await page.locator("input[value=layer]").isChecked());
    const answer = await write(page, 10);
    assert.equal(answer.sent.exit_layer, model.num_hidden_layers / 2);
  }));

  test("at one exit layer, all tokens leave there", async () => onPage({}, async (page) => {
    await page.check("input[value=layer]");
    for (const exit of [6, 18]) {
      await page.locator("#exit").fill(String(exit));
      assert.equal(await page.textContent("#exit-value"), `${exit} of ${model.num_hidden_layers}`);
      const answer = await write(page);
      assert.equal(answer.sent.exit_layer, exit);
      assert.ok(!("agreement" in answer.sent));
      await sameAsSaid(page, answer);
      assert.ok(answer.depths.every(({ depth }) => depth === exit));
      assert.equal(await background(options(page).first()), await background(page.locator(`#legend .swatch[data-layer="${exit}"]`)));
    }
  }));

  test("with drafts, colour and line show what became of them", async () => onPage({}, async (page) => {
    await page.check("input[value=draft]");
    const answer = await write(page, 120);
    assert.equal(answer.sent.speculate, `${Math.round(model.num_hidden_layers / 4)}:4`);
    assert.ok(!("agreement" in answer.sent));
    await sameAsSaid(page, answer);
    assert.ok(await page.locator("input[name=colour][value=origin]").isChecked());
    const lines = { chosen: "none", accepted: "underline double", corrected: "underline wavy" };
    const seen = await options(page).evaluateAll((nodes) => nodes.map((node) => {
      const style = getComputedStyle(node);
      return [node.dataset.origin, style.textDecorationLine === "none" ? "none" : `${style.textDecorationLine} ${style.textDecorationStyle}`];
    }));
    for (const [origin, line] of seen) assert.equal(line, lines[origin], origin);
    for (const origin of Object.keys(lines)) {
      const count = answer.depths.filter((entry) => entry.origin === origin).length;
      assert.match(await page.locator(`#legend li:has([data-origin=${origin}])`).textContent(), new RegExp(`: ${count}$`));
    }
    await page.check("input[name=colour][value=depth]");
    const { depth } = answer.depths[0];
    assert.equal(await background(options(page).first()), await background(page.locator(`#legend .swatch[data-layer="${depth}"]`)));
    if (answer.timings?.draft_n > 0) {
      assert.match(await page.textContent("#meter"), /Drafts accepted\s*(under |over )?\d+ %/);
    }
  }));

  test("while an agreement is measured, the page says so and counts the seconds", async () => onPage({}, async (page) => {
    await page.route("**/v1/completions", async (route) => {
      await new Promise((go) => setTimeout(go, 4000));
      await route.continue();
    });
    await page.fill("#max-tokens", "5");
    await page.click("#write-start");
    await page.waitForSelector("#write-wait:visible");
    const [shown, read] = await page.evaluate(() => ["write-wait", "write-status"].map((id) => document.getElementById(id).textContent));
    assert.match(shown, /^The server measures its exits for this agreement first\. .* \d+ s$/);
    assert.match(read, /^The server measures/);
    await idle(page);
    assert.ok(await page.locator("#write-wait").isHidden());
    await page.click("#write-start");
    await page.waitForSelector("#write-wait:visible");
    assert.doesNotMatch(await page.textContent("#write-wait"), /measures/, "it is measured once");
    await idle(page);
  }));

  test("a text can be stopped", async () => onPage({}, async (page) => {
    await page.route("**/v1/completions", () => {}); // never answered
    await page.click("#write-start");
    await page.click("#write-stop");
    await idle(page);
    assert.equal(await page.textContent("#write-status"), "Stopped after 0 tokens.");
    assert.equal(await page.textContent("#write-problem"), "");
    assert.ok(await page.locator("#write-start").evaluate((node) => node === document.activeElement), "the focus is not lost");
  }));
});
