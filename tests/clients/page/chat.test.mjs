// A chat, where the model has a chat template.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { model, onPage } from "./browser.mjs";
import { namelessControls } from "./checks.mjs";
import { replyTo, streamed } from "./replies.mjs";
import { idle } from "./writing.mjs";

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
