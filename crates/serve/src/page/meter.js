// The measures of a text: how long its first token takes, how fast it comes, how many drafts were right, how deep it went.

import { element } from "./element.js";
import { percent } from "./shade.js";

const PATIENCE = 1000; // milliseconds; a text that begins sooner needs no words

/** Counts while a text streams; the server's own measures replace the counts at the end. */
export class Pace {
  #first = null;
  #last = null;
  #timed = 0;
  tokens = 0;
  depth = 0;
  timings = null;

  take(depths, now = performance.now()) {
    if (depths.length === 0) return;
    if (this.#first === null) this.#first = now;
    else this.#timed += depths.length;
    this.#last = now;
    this.tokens += depths.length;
    for (const entry of depths) this.depth += entry.depth;
  }

  get perSecond() {
    if (this.timings?.predicted_per_second > 0) return this.timings.predicted_per_second;
    const seconds = (this.#last - this.#first) / 1000;
    return this.#timed > 0 && seconds > 0 ? this.#timed / seconds : null;
  }

  get meanDepth() {
    return this.timings?.mean_depth ?? (this.tokens > 0 ? this.depth / this.tokens : null);
  }

  get acceptance() {
    const { draft_n: drafted, draft_n_accepted: accepted } = this.timings ?? {};
    return drafted > 0 ? accepted / drafted : null;
  }
}

/** Speed in words. */
export function speed(perSecond) {
  if (perSecond === null) return "–";
  return perSecond.toLocaleString("en", { maximumFractionDigits: perSecond < 20 ? 1 : 0 });
}

export function showMeter(list, pace, layers) {
  const depth = pace.meanDepth;
  const rows = [
    ["Tokens", String(pace.tokens), ""],
    ["Tokens a second", speed(pace.perSecond), ""],
    ["Layers for a token, on average", depth === null ? "–" : depth.toFixed(1), `of ${layers}`],
  ];
  if (pace.acceptance !== null) rows.push(["Drafts accepted", percent(pace.acceptance), ""]);
  list.replaceChildren(...rows.map(([name, value, more]) =>
    element("div", {},
      element("dt", {}, name),
      element("dd", {}, value, more && element("small", {}, ` ${more}`)))));
}

/** While the first token has not come: why, and for how long already. */
export class Wait {
  #place;
  #status;
  #timer = null;

  /** `place` shows the seconds; `status` is read aloud and gets the sentence once. */
  constructor(place, status) {
    this.#place = place;
    this.#status = status;
  }

  begin(sentence) {
    this.end();
    const started = performance.now();
    this.#timer = setInterval(() => {
      const seconds = Math.floor((performance.now() - started) / 1000);
      if (this.#place.hidden) this.#status.textContent = sentence;
      this.#place.hidden = false;
      this.#place.replaceChildren(sentence, " ", element("span", { class: "seconds" }, `${seconds} s`));
    }, PATIENCE);
  }

  end() {
    clearInterval(this.#timer);
    this.#place.hidden = true;
  }
}
