// The grid: a row for each layer, a column for each token, in each cell the first choice of that exit.

import { element } from "./element.js";
import { named, percent, weigh } from "./shade.js";

const hidden = (words) => element("span", { class: "away" }, words);

export function showGrid({ frame, signs, layers, columns, focus, onChoose }) {
  const head = element("tr", {}, element("th", { scope: "col", class: "corner" }, "Layer"),
    ...columns.map((column) => header(column, onChoose)));
  const early = columns.some((column) => column.left !== null && column.left < layers.at(-1));
  const rows = layers.map((layer, row) =>
    element("tr", {}, element("th", { scope: "row" }, String(layer)),
      ...columns.map((column) => cell(column, column.exits[row], layer))));
  const caption = element("caption", { class: "away" }, "First choice of every layer for each token");
  const scroll = frame.scrollLeft;
  frame.replaceChildren(element("table", { class: "grid" }, caption, element("thead", {}, head), element("tbody", {}, ...rows)));
  frame.scrollLeft = scroll;
  const button = frame.querySelector("[aria-current=true]");
  reveal(frame, button);
  if (focus) button?.focus({ preventScroll: true });
  signs.replaceChildren(
    element("li", {}, element("b", { class: "sign", "aria-hidden": "true" }, "◆"), " From here on, the choice stays the same."),
    element("li", {}, element("b", { class: "sign", "aria-hidden": "true" }, "↗"), " Here the token left."),
    ...(early ? [element("li", {}, element("span", { class: "pale", "aria-hidden": "true" }, "pale"), " These layers did not run when the token was written.")] : []),
    element("li", {}, scale(), " Shade and bar: how sure the layer is."),
    element("li", {}, "Choose another token in the first row. Escape goes back to the text."));
}

function header(column, onChoose) {
  const next = column.token_id === null;
  const name = next ? "next" : named(column.token);
  const words = next ? "What comes next" : `Look at “${name}”${column.given ? ", from the opening" : ""}`;
  const button = element("button", {
    type: "button",
    "data-position": column.position,
    "aria-label": words,
    "aria-current": column.chosen ? "true" : null,
    title: words,
    click: () => onChoose(column.position),
  }, next ? "next?" : name);
  return element("th", { scope: "col", class: classes({ given: column.given, chosen: column.chosen, next }) }, button);
}

function cell(column, exit, layer) {
  const [first] = exit.top;
  const probability = Math.exp(first.logprob);
  const settled = column.settled_at === layer;
  const left = column.left === layer;
  const words = [`Layer ${layer} says “${named(first.token)}”, ${percent(probability)}`,
    settled && "from here on the choice stays the same", left && "the token left here"].filter(Boolean).join("; ");
  const node = element("td", {
    class: classes({ settled, left, skipped: column.left !== null && layer > column.left, chosen: column.chosen }),
    title: words,
    "data-position": column.position,
    "data-layer": layer,
  },
  element("span", { class: "said" }, named(first.token)),
  hidden(`, ${percent(probability)}${settled ? ", decided here" : ""}${left ? ", left here" : ""}`),
  settled || left ? element("b", { class: "sign", "aria-hidden": "true" }, `${settled ? "◆" : ""}${left ? "↗" : ""}`) : null);
  weigh(node, probability);
  return node;
}

function scale() {
  const node = element("span", { class: "scale", "aria-hidden": "true" });
  for (const sure of [0.1, 0.4, 0.7, 1]) {
    const step = element("span");
    weigh(step, sure);
    node.append(step);
  }
  return node;
}

function classes(flags) {
  return Object.keys(flags).filter((name) => flags[name]).join(" ") || null;
}

/** Scrolls sideways, and only there, until the chosen column shows. */
function reveal(frame, button) {
  if (!button) return;
  const column = button.closest("th");
  const corner = frame.querySelector(".corner").offsetWidth;
  const [left, right] = [column.offsetLeft - corner, column.offsetLeft + column.offsetWidth];
  if (left < frame.scrollLeft || right > frame.scrollLeft + frame.clientWidth) {
    frame.scrollLeft = left - (frame.clientWidth - corner - column.offsetWidth) / 2;
  }
}
