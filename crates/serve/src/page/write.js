// Writing on from an opening.

import { byId } from "./element.js";
import { tokenize } from "./server.js";
import { Source } from "./source.js";
import { Tokens } from "./tokens.js";

export function wireWrite({ model, desk, settings, lens }) {
  const layers = model.num_hidden_layers;
  let source = null;
  const tokens = new Tokens(byId("text"), {
    label: "The text, token by token",
    layers,
    onChoose: (index) => lens.chooseNew(source, index),
  });

  async function start() {
    const prompt = byId("opening").value;
    if (desk.busy || !byId("write-form").reportValidity() || !settings.valid()) return;
    lens.clear();
    tokens.clear();
    byId("given").textContent = prompt;
    source = new Source(tokens, () => tokenize({ prompt }));
    await desk.run("v1/completions", { model: model.id, prompt }, tokens);
  }

  byId("write-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  submitWithEnter(byId("opening"), byId("write-form"));
}

/** Ctrl + Enter, or ⌘ + Enter, in a text area. */
export function submitWithEnter(area, form) {
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    form.requestSubmit();
  });
}
