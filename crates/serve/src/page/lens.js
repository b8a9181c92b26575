// Through the layers: what every exit would have said at a place of the text, and around it.

import { showCandidates } from "./candidates.js";
import { byId } from "./element.js";
import { showGrid } from "./grid.js";
import { show } from "./problem.js";
import { exits } from "./server.js";
import { named, percent } from "./shade.js";

const AROUND = 4; // tokens on either side of the chosen one
const TOP = 5;
const MOST_ROWS = 32;

export class Lens {
  #model;
  #source = null;
  #abort = null;

  constructor(model) {
    this.#model = model;
    byId("layers-result").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#source?.tokens.focus();
    });
  }

  clear() {
    this.#abort?.abort();
    this.#source?.tokens.select(null);
    this.#source = null;
    show(byId("layers-problem"), null);
    byId("layers-result").hidden = true;
    byId("layers-empty").hidden = false;
  }

  /** Looks at the new token with this index. */
  chooseNew(source, index) {
    return this.#look(source, (prompt) => prompt.length + index);
  }

  async #look(source, place, { focus = false } = {}) {
    this.#abort?.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    if (this.#source && this.#source !== source) this.#source.tokens.select(null);
    this.#source = source;
    byId("layers-result").setAttribute("aria-busy", "true");
    try {
      const prompt = await source.prompt();
      const position = place(prompt);
      const ids = [...prompt, ...source.tokens.entries.map((entry) => entry.token_id)];
      const first = Math.max(1, position - AROUND);
      const end = Math.min(ids.length, position + AROUND + 1);
      const body = { model: this.#model.id, prompt: ids.slice(0, end), from: first, top_k: TOP };
      const rows = this.#rows();
      if (rows) body.exits = rows;
      const answer = await exits(body, signal);
      if (signal.aborted) return;
      this.#show(answer, { source, prompt, position, end: end === ids.length, focus });
    } catch (error) {
      show(byId("layers-problem"), error);
    } finally {
      if (!signal.aborted) byId("layers-result").removeAttribute("aria-busy");
    }
  }

  /** A deep model is shown at some of its exits, the last among them; `null` stands for all. */
  #rows() {
    const layers = this.#model.num_hidden_layers;
    if (layers <= MOST_ROWS) return null;
    const rows = Array.from({ length: MOST_ROWS }, (_, row) => Math.round(1 + (row * (layers - 1)) / (MOST_ROWS - 1)));
    return [...new Set(rows)];
  }

  #show(answer, { source, prompt, position, end, focus }) {
    show(byId("layers-problem"), null);
    byId("layers-empty").hidden = true;
    byId("layers-result").hidden = false;
    // The last entry says what comes next. It is shown only where the text ends.
    const columns = answer.positions.filter((entry) => end || entry.token_id !== null).map((entry) => ({
      ...entry,
      given: entry.position < prompt.length,
      left: source.tokens.entries[entry.position - prompt.length]?.depth ?? null,
      chosen: entry.position === position,
    }));
    const chosen = columns.find((column) => column.chosen);
    showGrid({
      frame: byId("grid-frame"),
      signs: byId("signs"),
      layers: answer.exit_layers,
      columns,
      focus,
      onChoose: (there) => {
        const index = there - prompt.length;
        source.tokens.select(index >= 0 && index < source.tokens.entries.length ? index : null);
        this.#look(source, () => there, { focus: true });
      },
    });
    showCandidates(byId("candidates-frame"), chosen, TOP);
    byId("verdict").textContent = verdict(chosen, this.#model.num_hidden_layers);
    if (!focus) {
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      byId("grid-frame").scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
    }
  }
}

function verdict(column, layers) {
  const best = column.exits.at(-1).top[0];
  const name = `“${named(best.token)}”`;
  const sure = percent(Math.exp(best.logprob));
  const parts = [];
  if (column.token_id === null) parts.push(`Next, the full model would say ${name}, ${sure} sure.`);
  else if (column.token_id === best.token_id) parts.push(`${name}: the full model says the same, ${sure} sure.`);
  else {
    const taken = percent(Math.exp(column.exits.at(-1).logprob));
    parts.push(`“${named(column.token)}”: the full model would rather say ${name}, ${sure} sure. It gives this token ${taken}.`);
  }
  if (column.settled_at === layers) parts.push("The model made up its mind only at the last layer.");
  else if (column.settled_at !== null) parts.push(`The model made up its mind at layer ${column.settled_at} of ${layers}.`);
  if (column.left === null) {
    if (column.token_id !== null) parts.push("This token was given, so the model did not choose it.");
  } else if (column.left < layers) {
    parts.push(`The token left at layer ${column.left}, so ${layers - column.left} layers did not run for it.`);
  } else {
    parts.push("The token went through all layers.");
  }
  return parts.join(" ");
}
