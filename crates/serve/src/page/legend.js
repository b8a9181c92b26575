// What the colours mean. For layers, the legend also counts the tokens that left at each.

import { element } from "./element.js";
import { shade } from "./shade.js";

const SIGNS = [
  ["chosen", "not drafted: the model chose it", "no line"],
  ["accepted", "drafted and accepted", "double line"],
  ["corrected", "corrected: another token was drafted here", "wavy line"],
];

export function showLegend(place, by, tokens, layers) {
  if (by === "origin") origins(place, tokens);
  else counts(place, tokens, layers);
}

function counts(place, tokens, layers) {
  const count = Array(layers + 1).fill(0);
  for (const { depth } of tokens) if (depth >= 1 && depth <= layers) count[depth] += 1;
  const most = Math.max(1, ...count);
  const step = Math.max(1, Math.ceil(layers / 12));
  const bars = [];
  for (let layer = 1; layer <= layers; layer += 1) {
    const words = `Layer ${layer}: ${count[layer]} ${count[layer] === 1 ? "token" : "tokens"}`;
    const bar = element("span", { class: "bar" });
    bar.style.setProperty("--height", (count[layer] / most).toFixed(3));
    const swatch = element("span", { class: "swatch", "data-layer": layer });
    const label = layer === 1 || layer === layers || (layer % step === 0 && layer > step && layers - layer >= step) ? String(layer) : "";
    const cell = element("span", { class: "layer", title: words }, bar, swatch, element("span", { class: "number" }, label));
    shade(swatch, layer, layers);
    shade(bar, layer, layers);
    bars.push(cell);
  }
  const used = count.map((n, layer) => [layer, n]).filter(([, n]) => n > 0).map(([layer, n]) => `${n} at layer ${layer}`);
  place.replaceChildren(
    element("p", { class: "hint" }, "Tokens that left at each layer. On the left they left early, on the right late."),
    element("div", {
      class: "counts",
      role: "img",
      "aria-label": used.length > 0 ? `Tokens that left: ${used.join(", ")}.` : "No token has left yet.",
    }, ...bars));
}

function origins(place, tokens) {
  place.replaceChildren(element("ul", { class: "origins" }, ...SIGNS.map(([origin, words, line]) => {
    const number = tokens.filter((token) => token.origin === origin).length;
    return element("li", {},
      element("span", { class: "sample", "data-origin": origin, "aria-hidden": "true" }, "token"),
      ` ${words} (${line}): ${number}`);
  })));
}
