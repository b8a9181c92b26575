// The page works for everyone: by keyboard, by name, in light and dark, on narrow screens. Pictures show it.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { before, describe, test } from "node:test";
import { BASE, OPENING, onPage } from "./browser.mjs";
import { brokenReferences, contrasts, namelessControls } from "./checks.mjs";
import { idle, options, write } from "./writing.mjs";

const SHOTS = process.env.OFFRAMP_SCREENSHOTS ?? new URL("screenshots/", import.meta.url).pathname;

describe("for everyone", () => {
  before(() => mkdir(SHOTS, { recursive: true }));

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
