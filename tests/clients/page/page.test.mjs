// The page in a real browser, against a running server: OFFRAMP_URL=http://127.0.0.1:8080 node --test page.test.mjs

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { chromium } from "playwright-core";
import { contrasts, namelessControls, brokenReferences } from "./checks.mjs";

const BASE = new URL(process.env.OFFRAMP_URL ?? "http://127.0.0.1:8080/").href;
const SHOTS = process.env.OFFRAMP_SCREENSHOTS ?? new URL("screenshots/", import.meta.url).pathname;
const OPENING = "Once upon a time, there was a little girl who";
const WIDE = { width: 1280, height: 900 };

let browser;
let model;

before(async () => {
  await mkdir(SHOTS, { recursive: true });
  model = (await (await fetch(new URL("v1/models", BASE))).json()).data[0];
  // An agreement is measured at its first use, which may take a while.
  const first = { model: model.id, prompt: OPENING, max_tokens: 1, agreement: 0.95 };
  const reply = await fetch(new URL("v1/completions", BASE), {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(first),
  });
  await reply.text();
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: process.getuid?.() === 0 ? ["--no-sandbox"] : [],
  });
});
after(() => browser?.close());

/** Opens the page, runs the body, and demands that nothing was said on the console or asked of another origin. */
async function onPage(options, body) {
  const { failures = false, ...rest } = options;
  const context = await browser.newContext({ viewport: WIDE, ...rest });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(BASE).origin) complaints.push(`asked elsewhere: ${request.url()}`);
  });
  // The strictest policy that the page promises to work under, whatever the server sends.
  await page.route(BASE, async (route) => {
    const reply = await route.fetch();
    await route.fulfill({ response: reply, headers: { ...reply.headers(), "content-security-policy": "default-src 'self'" } });
  });
  await page.addInitScript(keepReplies);
  try {
    await page.goto(BASE);
    await body(page, context);
    // The browser itself reports replies with an error status; a test of failures expects them.
    const unexpected = failures ? complaints.filter((text) => !/^Failed to load resource/.test(text)) : complaints;
    assert.deepEqual(unexpected, []);
  } finally {
    await context.close();
  }
}

/** Keeps a copy of every reply that the page reads, as the page reads it. */
function keepReplies() {
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
async function replies(page, path, wanted) {
  const handle = await page.waitForFunction(([at, count]) => {
    const whole = window.replies.filter((entry) => entry.path === at && entry.body !== null);
    return whole.length >= count && whole;
  }, [path, wanted]);
  return handle.jsonValue();
}

const countOf = (page, path) => page.evaluate((at) => window.replies.filter((entry) => entry.path === at && entry.body !== null).length, path);

/** Does something, and returns the reply that the page got for it. */
async function replyTo(page, path, act) {
  const before = await countOf(page, path);
  await act();
  return (await replies(page, path, before + 1)).at(-1);
}

/** A streamed reply: its text, its tokens, what was asked. */
function streamed({ sent, body }) {
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

const idle = (page, part = "write") => page.waitForSelector(`#${part}-start:enabled`);
const options = (page) => page.locator("#text [role=option]");
const background = (locator) => locator.evaluate((node) => getComputedStyle(node).backgroundColor);

/** Writes from the opening with the settings as they are. */
async function write(page, tokens = 60) {
  await page.fill("#opening", OPENING);
  await page.fill("#max-tokens", String(tokens));
  const reply = await replyTo(page, "v1/completions", () => page.click("#write-start"));
  await idle(page);
  return streamed(reply);
}

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

describe("for everyone", () => {
  async function full(page) {
    await write(page, 40);
    await options(page).nth(6).click();
    await page.waitForSelector(".grid");
    await page.click("#depths-start");
    await idle(page, "depths");
  }

  test("with the keyboard alone", async () => onPage({}, async (page) => {
    const focused = (selector) => page.evaluate((s) => document.activeElement?.matches(s) ?? false, selector);
    const tabTo = async (selector, most = 40) => {
      for (let i = 0; i < most; i += 1) {
        if (await focused(selector)) return;
        await page.keyboard.press("Tab");
      }
      assert.fail(`Tab does not reach ${selector}`);
    };
    await page.waitForSelector("#write-start:visible");
    await page.keyboard.press("Tab");
    assert.ok(await focused(".skip"), "the first stop skips to the text");
    await tabTo("#opening");
    await page.keyboard.press("Control+A");
    await page.keyboard.type(OPENING);
    await page.keyboard.press("Control+Enter");
    await page.waitForFunction(() => document.getElementById("write-status").textContent.startsWith("Done"));
    await tabTo("#text [role=option]");
    const index = () => page.evaluate(() => Number(document.activeElement.dataset.index));
    assert.equal(await index(), 0);
    for (let i = 0; i < 3; i += 1) await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowLeft");
    assert.equal(await index(), 2);
    await page.keyboard.press("ArrowDown");
    const below = await index();
    assert.ok(below > 3, "the arrow leads to the next line");
    await page.keyboard.press("ArrowUp");
    assert.ok((await index()) < below);
    await page.keyboard.press("End");
    assert.equal(await index(), (await options(page).count()) - 1);
    await page.keyboard.press("Home");
    await page.keyboard.press("ArrowRight");
    assert.equal(await page.locator("#text [tabindex='0']").count(), 1, "one tab stop");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".grid");
    assert.ok(await focused("#text [role=option][aria-selected=true]"));
    await tabTo(".grid thead button");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.activeElement.matches(".grid thead [aria-current=true]"));
    await page.keyboard.press("Escape");
    assert.ok(await focused("#text [role=option]"), "Escape leads back to the text");
    await tabTo("#depths-start");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("depths-status").textContent.startsWith("Done"));
  }));

  test("every control has a name, every reference leads somewhere, headings are in order", async () => onPage({}, async (page) => {
    await full(page);
    assert.deepEqual(await namelessControls(page), []);
    assert.deepEqual(await brokenReferences(page), []);
    const levels = await page.locator("h1, h2, h3").evaluateAll((nodes) => nodes.map((node) => Number(node.tagName[1])));
    assert.equal(levels.filter((level) => level === 1).length, 1);
    levels.reduce((before, level) => (assert.ok(level <= before + 1, "no level is skipped"), level), 0);
    for (const landmark of ["main", "nav[aria-label]", "header", "footer"]) assert.equal(await page.locator(landmark).count(), 1, landmark);
    assert.equal(await page.locator("html").getAttribute("lang"), "en");
    const source = await (await fetch(BASE)).text();
    assert.doesNotMatch(source, /\sstyle=|<style|\son\w+=|<script(?![^>]*\ssrc=)/, "nothing inline");
    assert.doesNotMatch(source, /(?:src|href)="(?:https?:)?\//, "addresses are relative");
  }));

  for (const colorScheme of ["light", "dark"]) {
    test(`contrast, ${colorScheme}`, async () => onPage({ colorScheme, reducedMotion: "reduce" }, async (page) => {
      await full(page);
      await page.click("summary");
      assert.deepEqual(await contrasts(page, 4.5), []);
      await page.check("input[name=colour][value=origin]");
      assert.deepEqual(await contrasts(page, 4.5), []);
    }));
  }

  for (const width of [360, 320]) {
    test(`no sideways scroll at ${width} pixels`, async () => onPage({ viewport: { width, height: 740 } }, async (page) => {
      await full(page);
      await page.click("summary");
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `the page is ${wide} wide`);
    }));
  }

  test("no motion where none is wanted", async () => onPage({ reducedMotion: "reduce" }, async (page) => {
    assert.equal(await page.evaluate(() => getComputedStyle(document.documentElement).scrollBehavior), "auto");
  }));

  for (const [name, look] of Object.entries({
    light: { colorScheme: "light" },
    dark: { colorScheme: "dark" },
    narrow: { colorScheme: "light", viewport: { width: 360, height: 740 } },
  })) {
    test(`a picture: ${name}`, async () => onPage({ ...look, reducedMotion: "reduce" }, async (page) => {
      await full(page);
      await page.screenshot({ path: `${SHOTS}/${name}.png`, fullPage: true });
    }));
  }
});

describe("chat", () => {
  test("a chat streams, and its tokens can be looked through", async (t) => {
    if (!model.chat) return t.skip("this model has no chat template");
    await onPage({}, async (page) => {
      await page.check("input[name=kind][value=chat]");
      await page.fill("#max-tokens", "30");
      for (const [turn, message] of ["Who are you?", "And then?"].entries()) {
        await page.fill("#message", message);
        const answer = streamed(await replyTo(page, "v1/chat/completions", () => page.click("#chat-start")));
        await idle(page, "chat");
        assert.equal(answer.sent.messages.length, 2 * turn + 1);
        assert.equal(await page.locator("#talk [role=listbox]").nth(turn).evaluate((node) => node.textContent), answer.text);
      }
      await page.locator("#talk [role=listbox]").first().locator("[role=option]").nth(2).click();
      await page.waitForSelector(".grid");
      assert.deepEqual(await namelessControls(page), []);
    });
  });

  test("without a chat template the page says so", async (t) => {
    if (model.chat) return t.skip("this model has a chat template");
    await onPage({}, async (page) => {
      await page.waitForSelector("#no-chat:visible");
      assert.ok(await page.locator("#kind").isHidden());
    });
  });
});
