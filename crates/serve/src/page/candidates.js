// The first choices of every exit for one token.

import { byId, element } from "./element.js";
import { named, percent, weigh } from "./shade.js";

export function showCandidates(frame, column, top) {
  const given = column.token_id !== null;
  const places = Array.from({ length: top }, (_, place) => String(place + 1));
  const heads = ["Layer", ...(given ? [`“${named(column.token)}”`] : []), ...places];
  const rows = column.exits.map((exit) =>
    element("tr", {},
      element("th", { scope: "row" }, String(exit.exit_layer)),
      given ? element("td", { class: "share" }, percent(Math.exp(exit.logprob))) : null,
      ...exit.top.map((choice) => candidate(choice, choice.token_id === column.token_id))));
  byId("candidates-hint").textContent = given
    ? `Each row is a layer. The second column is how likely it finds “${named(column.token)}”. Then come its ${top} first choices.`
    : `Each row is a layer, with its ${top} first choices for the next token.`;
  frame.replaceChildren(element("table", { class: "candidates" },
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows)));
}

function candidate(choice, taken) {
  const probability = Math.exp(choice.logprob);
  const node = element("td", { class: taken ? "taken" : null, "data-token": choice.token_id },
    element("span", { class: "said" }, named(choice.token)), element("small", {}, ` ${percent(probability)}`));
  weigh(node, probability);
  return node;
}
