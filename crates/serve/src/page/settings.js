// The settings that all parts share, as fields of a request.

import { byId } from "./element.js";

const DRAFTED = 4; // tokens in a draft

export class Settings {
  #layers;

  constructor(model) {
    this.#layers = model.num_hidden_layers;
    const exit = byId("exit");
    exit.max = this.#layers;
    exit.value = Math.ceil(this.#layers / 2);
    const draft = byId("draft");
    draft.max = Math.max(1, this.#layers - 1);
    draft.value = Math.max(1, Math.round(this.#layers / 4));
    if (model.max_model_len) byId("max-tokens").max = model.max_model_len;
    if (!model.agreement) this.#withoutAgreement();
    byId("settings").addEventListener("input", () => this.#say());
    byId("settings").addEventListener("submit", (event) => event.preventDefault());
    this.#say();
  }

  get way() {
    return document.querySelector("input[name=way]:checked").value;
  }

  /** Whether all numbers are within their bounds; if not, the browser shows which is not. */
  valid() {
    return byId("settings").reportValidity();
  }

  /** How tokens are chosen, and how many. */
  sampling() {
    const fields = { max_tokens: Number(byId("max-tokens").value), temperature: Number(byId("temperature").value) };
    if (byId("seed").value !== "") fields.seed = Number(byId("seed").value);
    return fields;
  }

  /** Where tokens leave. An agreement excludes an exit layer and speculation. */
  leaving() {
    switch (this.way) {
      case "sure": return { agreement: Number(byId("agreement").value) };
      case "layer": return { exit_layer: Number(byId("exit").value), speculate: "off" };
      default: return { speculate: `${byId("draft").value}:${DRAFTED}` };
    }
  }

  /** A server without text to measure on cannot keep an agreement. */
  #withoutAgreement() {
    const way = document.querySelector("input[name=way][value=sure]");
    way.disabled = true;
    byId("sure-hint").textContent = "This server has no text to measure on, so it cannot do this.";
    document.querySelector("input[name=way][value=layer]").checked = true;
  }

  #say() {
    for (const knob of document.querySelectorAll("[data-way]")) knob.hidden = knob.dataset.way !== this.way;
    const agreement = Number(byId("agreement").value);
    byId("agreement-value").textContent = agreement.toFixed(2);
    byId("agreement-hint").textContent =
      `About ${Math.round(100 * agreement)} of 100 tokens are the ones that the full model would choose. `
      + "The server measures each agreement once, at its first use.";
    const exit = Number(byId("exit").value);
    byId("exit-value").textContent = exit === this.#layers ? `${exit}, the full model` : `${exit} of ${this.#layers}`;
    byId("draft-value").textContent = `${byId("draft").value} of ${this.#layers}`;
    const temperature = Number(byId("temperature").value);
    byId("temperature-value").textContent = temperature.toFixed(1);
    byId("temperature-hint").textContent = temperature === 0
      ? "The likeliest token is always chosen. The seed has no effect."
      : temperature < 0.7 ? "Likely tokens are chosen, with some variety."
      : temperature <= 1 ? "Less likely tokens are chosen, too." : "Unlikely tokens are chosen often.";
  }
}
