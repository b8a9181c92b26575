// Starts the page: asks which model the server runs, then wires the parts.

import { wireChat } from "./chat.js";
import { wireDepths } from "./depths.js";
import { Desk } from "./desk.js";
import { byId } from "./element.js";
import { Lens } from "./lens.js";
import { show } from "./problem.js";
import { firstModel, useKey } from "./server.js";
import { Settings } from "./settings.js";
import { wireWrite } from "./write.js";

let started = false;

async function start() {
  if (started) return;
  try {
    show(byId("start-problem"), null);
    const model = await firstModel();
    started = true;
    wire(model);
  } catch (error) {
    show(byId("start-problem"), error);
  } finally {
    byId("loading").hidden = true;
  }
}

function wire(model) {
  const layers = model.num_hidden_layers;
  byId("model").textContent = `${model.id}, ${layers} layers`;
  for (const place of document.querySelectorAll("[data-layers=all]")) place.textContent = `all ${layers}`;
  const settings = new Settings(model);
  const lens = new Lens(model);
  const desk = new Desk(settings, layers);
  const parts = { model, desk, settings, lens };
  wireWrite(parts);
  wireDepths(parts);
  if (model.chat) wireChat(parts);
  byId("no-chat").hidden = model.chat;
  byId("parts").hidden = false;
}

document.addEventListener("key-wanted", () => {
  byId("key-form").hidden = false;
  byId("key").focus();
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key").value);
  byId("key-form").hidden = true;
  byId("key").value = "";
  if (started) byId("write-start").focus();
  start();
});

start();
