// Runs one text: streams it into a row of tokens and measures it.

import { Pace } from "./meter.js";
import { write } from "./server.js";

/** `onProgress(pace)` is called at most once per frame, and once at the end, however it ends. */
export async function run({ path, fields, tokens, signal, onProgress }) {
  const pace = new Pace();
  let ignored = null;
  let frame = 0;
  tokens.list.setAttribute("aria-busy", "true");
  try {
    for await (const piece of write(path, fields, signal)) {
      if (piece.ignored) ignored = piece.ignored;
      if (piece.timings) pace.timings = piece.timings;
      if (!piece.depths) continue;
      tokens.append(piece);
      pace.take(piece.depths);
      if (!frame) frame = requestAnimationFrame(() => { frame = 0; onProgress(pace); });
    }
  } finally {
    cancelAnimationFrame(frame);
    tokens.list.removeAttribute("aria-busy");
    onProgress(pace);
  }
  return { pace, ignored };
}
