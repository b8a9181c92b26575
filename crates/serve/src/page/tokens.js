// A text as a row of tokens: one tab stop, arrow keys move, Enter or a click chooses.

import { element } from "./element.js";
import { named, shade } from "./shade.js";

const ORIGINS = {
  chosen: "not drafted",
  accepted: "drafted and accepted",
  corrected: "a draft was corrected here",
};

export class Tokens {
  #layers;
  #onChoose;
  #current = null;

  /** `list` is the element that holds the tokens; `onChoose(index)` is called with the place of a chosen token. */
  constructor(list, { label, layers, onChoose }) {
    this.list = list;
    this.entries = [];
    this.#layers = layers;
    this.#onChoose = onChoose;
    list.classList.add("tokens");
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", label);
    list.setAttribute("aria-orientation", "horizontal");
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("click", (event) => {
      const token = event.target.closest("[role=option]");
      if (token) this.#choose(token);
    });
    this.clear();
  }

  get text() {
    return this.list.textContent;
  }

  clear() {
    this.entries = [];
    this.#current = null;
    this.list.replaceChildren();
  }

  /** Adds a piece of text and the tokens that it is made of. */
  append({ text, depths }) {
    const whole = depths.map((entry) => entry.token).join("");
    if (depths.length > 0 && whole === text) {
      for (const entry of depths) this.#add(entry.token, [entry]);
    } else if (depths.length > 0 && text === "") {
      this.entries.push(...depths); // They stand in the text, but show nothing, as before a stop string.
    } else if (depths.length > 0) {
      this.#add(text, depths); // Several tokens make one sign, as in an emoji.
    } else {
      this.list.append(text);
    }
  }

  /** Marks the token at this place, without a call of `onChoose`. */
  select(index) {
    for (const node of this.list.querySelectorAll("[aria-selected=true]")) node.setAttribute("aria-selected", "false");
    const node = index === null ? null : this.#options().findLast((option) => Number(option.dataset.index) <= index);
    if (!node) return;
    node.setAttribute("aria-selected", "true");
    this.#rove(node);
  }

  /** Marks where this text parts from another one. */
  part(index) {
    this.list.querySelector(".parting")?.classList.remove("parting");
    if (index === null) return;
    this.#options().find((option) => Number(option.dataset.index) === index)?.classList.add("parting");
  }

  focus() {
    this.#current?.focus();
  }

  #options() {
    return [...this.list.querySelectorAll("[role=option]")];
  }

  #add(text, entries) {
    const { depth, origin } = entries.reduce((deepest, entry) => (entry.depth > deepest.depth ? entry : deepest));
    const label = `${named(text)}: left at layer ${depth} of ${this.#layers}, ${ORIGINS[origin] ?? origin}`;
    // A blank before a word stays outside of the mark, so that a line may break there.
    const blank = text.trim() === "" ? "" : text.match(/^ */)[0];
    const node = element("span", {
      role: "option",
      tabindex: "-1",
      class: text.includes("\n") ? "token newline" : "token",
      "aria-selected": "false",
      "aria-label": label,
      title: label,
      "data-index": this.entries.length,
      "data-depth": depth,
      "data-origin": origin,
    }, text.slice(blank.length));
    shade(node, depth, this.#layers);
    this.entries.push(...entries);
    this.list.append(blank, node);
    if (!this.#current) this.#rove(node);
  }

  #rove(node) {
    this.#current?.setAttribute("tabindex", "-1");
    this.#current = node;
    node.setAttribute("tabindex", "0");
  }

  #choose(node) {
    const index = Number(node.dataset.index);
    this.select(index);
    node.focus({ preventScroll: true });
    this.#onChoose(index);
  }

  #key(event) {
    const here = event.target.closest("[role=option]");
    if (!here || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.#choose(here);
      return;
    }
    const there = this.#target(event.key, here);
    if (!there) return;
    event.preventDefault();
    this.#rove(there);
    there.focus();
  }

  #target(key, here) {
    const options = this.#options();
    const at = options.indexOf(here);
    switch (key) {
      case "ArrowLeft": return options[Math.max(0, at - 1)];
      case "ArrowRight": return options[Math.min(options.length - 1, at + 1)];
      case "Home": return options[0];
      case "End": return options.at(-1);
      case "ArrowUp": return nearest(options.slice(0, at).reverse(), here, -1);
      case "ArrowDown": return nearest(options.slice(at + 1), here, 1);
      default: return null;
    }
  }
}

/** The token of the next line in a direction that stands nearest to this one. */
function nearest(options, here, direction) {
  const from = here.getClientRects()[0];
  const middle = (from.left + from.right) / 2;
  let line = null;
  let best = null;
  let distance = Infinity;
  for (const option of options) {
    const box = option.getClientRects()[0];
    if (!box || (box.top - from.top) * direction < from.height / 2) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) > from.height / 2) break;
    const away = Math.abs((box.left + box.right) / 2 - middle);
    if (away < distance) [best, distance] = [option, away];
  }
  return best;
}
