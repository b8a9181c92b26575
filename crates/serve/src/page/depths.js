// The same opening from four exits.

import { byId, element } from "./element.js";
import { speed } from "./meter.js";
import { show } from "./problem.js";
import { run } from "./run.js";
import { tokenize } from "./server.js";
import { named, shade } from "./shade.js";
import { Source } from "./source.js";
import { Tokens } from "./tokens.js";

export function wireDepths({ model, settings, lens }) {
  const layers = model.num_hidden_layers;
  const places = [1, 3 / 4, 1 / 2, 1 / 4].map((part) => Math.max(1, Math.round(layers * part)));
  const columns = places.map((exit, index) => new Column(exit, index, layers, lens));
  byId("columns").replaceChildren(...columns.map((column) => column.node));
  let abort = null;

  function buttons(busy) {
    const [start, stop] = [byId("depths-start"), byId("depths-stop")];
    const focused = document.activeElement;
    stop.disabled = !busy;
    start.disabled = busy;
    if (focused === start && busy) stop.focus();
    if (focused === stop && !busy) start.focus();
    for (const column of columns) column.select.disabled = busy;
  }

  async function start() {
    if (abort || !byId("write-form").reportValidity() || !settings.valid()) return;
    abort = new AbortController();
    const { signal } = abort;
    const prompt = byId("opening").value;
    const fields = { model: model.id, prompt, ...settings.sampling(), speculate: "off" };
    const alone = document.querySelector("input[name=order]:checked").value === "alone";
    buttons(true);
    show(byId("depths-problem"), null);
    byId("depths-status").textContent = "Writing four texts.";
    for (const column of columns) column.prepare(prompt);
    try {
      if (alone) for (const column of columns) await column.run(fields, signal);
      else await together(columns.map((column) => column.run(fields, signal)), abort);
      compare(columns);
      byId("depths-status").textContent = `Done. ${columns.map((column) => column.summary).join(" ")}`;
    } catch (error) {
      show(byId("depths-problem"), error);
      byId("depths-status").textContent = error.name === "AbortError" ? "Stopped." : "";
      for (const column of columns) column.giveUp();
    } finally {
      abort = null;
      buttons(false);
    }
  }

  byId("depths-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  byId("depths-stop").addEventListener("click", () => abort?.abort());
}

/** Waits until all have ended. The first failure stops the others, which would fail alike, and is thrown. */
async function together(runs, abort) {
  let failure = null;
  await Promise.all(runs.map((run) => run.catch((error) => {
    failure ??= error;
    abort.abort();
  })));
  if (failure) throw failure;
}

class Column {
  #layers;
  #source = null;
  #done = false;
  #speed = null;

  constructor(exit, index, layers, lens) {
    this.#layers = layers;
    this.select = element("select", { id: `column-${index}`, "aria-label": `Exit layer of column ${index + 1}`, change: () => this.#paint() });
    for (let layer = layers; layer >= 1; layer -= 1) this.select.append(new Option(String(layer), String(layer)));
    this.select.value = String(exit);
    this.swatch = element("span", { class: "stack", "aria-hidden": "true" });
    this.rate = element("p", { class: "rate" });
    this.note = element("p", { class: "hint note" });
    const list = element("span", { class: "column-text" });
    this.tokens = new Tokens(list, {
      label: `Text of column ${index + 1}, token by token`,
      layers,
      onChoose: (at) => lens.chooseNew(this.#source, at),
    });
    this.node = element("div", { class: "column", role: "group" },
      element("p", { class: "head" }, element("label", { for: `column-${index}` }, "Exit layer "), this.select),
      this.swatch, this.rate, element("p", { class: "story small" }, list), this.note);
    this.#paint();
  }

  get exit() {
    return Number(this.select.value);
  }

  get summary() {
    return `Layer ${this.exit}: ${this.#speed} tokens a second. ${this.note.textContent}`;
  }

  prepare(prompt) {
    this.tokens.clear();
    this.#done = false;
    this.note.textContent = "";
    this.rate.textContent = "waits";
    this.#source = new Source(this.tokens, () => tokenize({ prompt }));
  }

  async run(fields, signal) {
    signal.throwIfAborted();
    const onProgress = (pace) => {
      this.#speed = speed(pace.perSecond);
      this.rate.replaceChildren(element("b", {}, this.#speed), " tokens/s");
    };
    await run({ path: "v1/completions", fields: { ...fields, exit_layer: this.exit }, tokens: this.tokens, signal, onProgress });
    this.#done = true;
  }

  giveUp() {
    if (!this.#done) this.rate.textContent = this.tokens.entries.length > 0 ? "stopped" : "–";
  }

  #paint() {
    shade(this.swatch, this.exit, this.#layers);
    this.node.setAttribute("aria-label", `Exit layer ${this.exit} of ${this.#layers}`);
  }
}

/** Says of every column where it parts from the deepest one. */
function compare(columns) {
  const deepest = columns.reduce((best, column) => (column.exit > best.exit ? column : best));
  const model = deepest.tokens.entries;
  for (const column of columns) {
    if (column === deepest) {
      column.note.textContent = "The others are compared with this text.";
      continue;
    }
    const own = column.tokens.entries;
    const shorter = Math.min(own.length, model.length);
    let same = 0;
    while (same < shorter && own[same].token_id === model[same].token_id) same += 1;
    const parts = same < shorter;
    column.tokens.part(parts ? same : null);
    if (!parts) column.note.textContent = `${same === model.length && same === own.length ? "The same text" : `The same for ${same} tokens`}.`;
    else if (same === 0) column.note.textContent = `Another text from the first token on: “${named(own[0].token)}” (≠) in place of “${named(model[0].token)}”.`;
    else column.note.textContent = `The same for ${same} ${same === 1 ? "token" : "tokens"}, then “${named(own[same].token)}” (≠) in place of “${named(model[same].token)}”.`;
  }
}
