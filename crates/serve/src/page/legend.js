// What the colours mean, and how many tokens have each. Only layers at which tokens left are listed.

import { element } from "./element.js";
import { shade } from "./shade.js";

const SIGNS = [
  ["chosen", "not drafted; the full model chose it", "no line"],
  ["accepted", "drafted, and the full model agreed", "double line"],
  ["corrected", "corrected; the draft had another token here", "wavy line"],
];

export function showLegend(place, by, tokens, layers) {
  if (by === "origin") origins(place, tokens);
  else counts(place, tokens, layers);
}

function counts(place, tokens, layers) {
  const count = Array(layers + 1).fill(0);
  for (const { depth } of tokens) if (depth >= 1 && depth <= layers) count[depth] += 1;
  const rows = count.map((number, layer) => row(layer, number, tokens.length, layers)).filter((_, layer) => count[layer] > 0);
  place.replaceChildren(
    element("p", { class: "hint" }, "The colour of a token shows the layer at which it left. A longer bar below it means a deeper layer."),
    element("ul", { class: "counts" }, ...rows));
}

/** One layer at which tokens left. Layers at which none left are not listed. */
function row(layer, number, all, layers) {
  const swatch = element("span", { class: "swatch", "data-layer": layer }, layer === layers ? `all ${layers} layers` : `layer ${layer}`);
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  shade(swatch, layer, layers);
  shade(bar, layer, layers);
  bar.style.setProperty("--part", (number / all).toFixed(3));
  return element("li", {}, swatch, element("span", { class: "track" }, bar), ` ${number} ${number === 1 ? "token" : "tokens"}`);
}

function origins(place, tokens) {
  place.replaceChildren(element("ul", { class: "origins" }, ...SIGNS.map(([origin, words, line]) => {
    const number = tokens.filter((token) => token.origin === origin).length;
    return element("li", {},
      element("span", { class: "sample", "data-origin": origin, "aria-hidden": "true" }, "token"),
      ` ${words} (${line}): ${number}`);
  })));
}
