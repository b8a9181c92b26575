// The browser, and a page in it: started once for each file of tests, and opened anew for each test.

import assert from "node:assert/strict";
import { after, before } from "node:test";
import { chromium } from "playwright-core";
import { keepReplies } from "./replies.mjs";

export const BASE = new URL(process.env.OFFRAMP_URL ?? "http://127.0.0.1:8080/").href;
export const OPENING = "Once upon a time, there was a little girl who";
const WIDE = { width: 1280, height: 900 };

/** What `/v1/models` says of the served model; known when the first test begins. */
export let model;

let browser;

before(async () => {
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
export async function onPage(options, body) {
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
