// Writing a text on the page, and its tokens.

import { OPENING } from "./browser.mjs";
import { replyTo, streamed } from "./replies.mjs";

/** Waits until nothing of this part runs. */
export const idle = (page, part = "write") => page.waitForSelector(`#${part}-start:enabled`);

/** The tokens of the text. */
export const options = (page) => page.locator("#text [role=option]");

/** Writes from the opening with the settings as they are. */
export async function write(page, tokens = 60) {
  await page.fill("#opening", OPENING);
  await page.fill("#max-tokens", String(tokens));
  const reply = await replyTo(page, "v1/completions", () => page.click("#write-start"));
  await idle(page);
  return streamed(reply);
}
