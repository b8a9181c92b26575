// What writing and chat share: the buttons, the meter, the legend, and what is said when a text ends.

import { byId } from "./element.js";
import { showLegend } from "./legend.js";
import { Pace, Wait, showMeter, speed } from "./meter.js";
import { show } from "./problem.js";
import { run } from "./run.js";

const MEASURES = "The server measures its exits for this agreement first. That takes some seconds, once. "
  + "The other two ways start at once.";
const WAITS = "The server has the text, and the first token has not come yet.";

export class Desk {
  #settings;
  #layers;
  #abort = null;
  #shown = { tokens: [], pace: new Pace() };
  #wait = new Wait(byId("write-wait"), byId("write-status"));
  #measured = new Set();

  constructor(settings, layers) {
    this.#settings = settings;
    this.#layers = layers;
    byId("colour").addEventListener("change", () => this.#paint());
    for (const id of ["write-stop", "chat-stop"]) byId(id).addEventListener("click", () => this.stop());
    this.#paint();
  }

  get busy() {
    return this.#abort !== null;
  }

  stop() {
    this.#abort?.abort();
  }

  /** Runs one text. Returns what became of it: "done", "stopped" or "failed". */
  async run(path, fields, tokens) {
    this.#abort = new AbortController();
    this.#buttons(true);
    this.#colourFor(this.#settings.way);
    show(byId("write-problem"), null);
    byId("write-status").textContent = "Writing.";
    byId("write-result").hidden = false;
    const whole = { ...fields, ...this.#settings.sampling(), ...this.#settings.leaving() };
    const { agreement } = whole;
    this.#shown = { tokens: [], pace: new Pace() };
    this.#paint();
    this.#wait.begin(agreement && !this.#measured.has(agreement) ? MEASURES : WAITS);
    const onProgress = (pace) => {
      if (pace.tokens > 0) {
        this.#wait.end();
        if (agreement) this.#measured.add(agreement);
      }
      this.#shown = { tokens: tokens.entries, pace };
      this.#paint();
    };
    try {
      const { pace, ignored } = await run({ path, fields: whole, tokens, signal: this.#abort.signal, onProgress });
      const note = ignored ? ` The server ignored these fields: ${ignored}.` : "";
      byId("write-status").textContent =
        `Done: ${pace.tokens} tokens, ${speed(pace.perSecond)} a second.${note} The text: ${tokens.text}`;
      return "done";
    } catch (error) {
      show(byId("write-problem"), error);
      const stopped = error.name === "AbortError";
      byId("write-status").textContent = stopped ? `Stopped after ${tokens.entries.length} tokens.` : "";
      if (!stopped && tokens.entries.length === 0) byId("write-result").hidden = tokens.list.id === "text";
      return stopped ? "stopped" : "failed";
    } finally {
      this.#wait.end();
      this.#abort = null;
      this.#buttons(false);
    }
  }

  #buttons(busy) {
    const focused = document.activeElement;
    for (const name of ["write", "chat"]) {
      const [start, stop] = [byId(`${name}-start`), byId(`${name}-stop`)];
      stop.disabled = !busy;
      start.disabled = busy;
      // A button that is disabled loses the focus, so the other one takes it.
      if (focused === start && busy) stop.focus();
      if (focused === stop && !busy) start.focus();
    }
  }

  #colourFor(way) {
    const by = way === "draft" ? "origin" : "depth";
    document.querySelector(`input[name=colour][value=${by}]`).checked = true;
  }

  #paint() {
    const by = document.querySelector("input[name=colour]:checked").value;
    byId("write-result").dataset.colour = by;
    showMeter(byId("meter"), this.#shown.pace, this.#layers);
    showLegend(byId("legend"), by, this.#shown.tokens, this.#layers);
  }
}
