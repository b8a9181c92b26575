// How a number becomes a colour: the style sheet has the colours, this sets the share.

/** Layer 1 is 0, the last layer is 1. */
export function shade(node, layer, layers) {
  const share = layers > 1 ? (layer - 1) / (layers - 1) : 1;
  node.style.setProperty("--share", share.toFixed(4));
  node.style.setProperty("--length", `${((100 * layer) / layers).toFixed(1)}%`);
}

/** A probability from 0 to 1. */
export function weigh(node, probability) {
  node.style.setProperty("--sure", probability.toFixed(3));
}

/** A probability in words: "43 %", "under 1 %". */
export function percent(probability) {
  if (probability > 0 && probability < 0.005) return "under 1 %";
  if (probability < 1 && probability >= 0.995) return "over 99 %";
  return `${Math.round(100 * probability)} %`;
}

/** A token as it is shown outside the text: blanks at its start go, line breaks get a sign. */
export function named(token) {
  if (token === "") return "(nothing)";
  const shown = token.replace(/\n/g, "↵").replace(/\t/g, "⇥");
  return shown.trim() === "" ? "␣" : shown.trim();
}
