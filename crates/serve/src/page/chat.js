// A chat, where the model has a template for it.

import { byId, element } from "./element.js";
import { tokenize } from "./server.js";
import { Source } from "./source.js";
import { Tokens } from "./tokens.js";
import { submitWithEnter } from "./write.js";

export function wireChat({ model, desk, settings, lens }) {
  const layers = model.num_hidden_layers;
  const talk = byId("talk");
  let messages = [];

  function turn(role, ...children) {
    const name = role === "user" ? "You" : "Model";
    const item = element("li", { class: `turn ${role}` }, element("b", { class: "who" }, name), ...children);
    talk.append(item);
    return item;
  }

  async function send() {
    const message = byId("message");
    if (desk.busy || !byId("chat-form").reportValidity() || !settings.valid()) return;
    const content = message.value;
    const asked = [...messages, { role: "user", content }];
    const mine = turn("user", element("p", {}, content));
    const list = element("span");
    const reply = turn("model", element("p", { class: "story" }, list));
    const source = {};
    const tokens = new Tokens(list, {
      label: "The answer, token by token",
      layers,
      onChoose: (index) => lens.chooseNew(source.text, index),
    });
    source.text = new Source(tokens, () => tokenize({ messages: asked }));
    message.value = "";
    const end = await desk.run("v1/chat/completions", { model: model.id, messages: asked }, tokens);
    if (end === "failed" || tokens.entries.length === 0) {
      mine.remove();
      reply.remove();
      message.value = content;
    } else {
      messages = [...asked, { role: "assistant", content: tokens.text }];
    }
  }

  byId("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  byId("chat-new").addEventListener("click", () => {
    desk.stop();
    messages = [];
    talk.replaceChildren();
    lens.clear();
    byId("message").focus();
  });
  submitWithEnter(byId("message"), byId("chat-form"));

  byId("kind").hidden = false;
  byId("kind").addEventListener("change", () => {
    const chat = document.querySelector("input[name=kind]:checked").value === "chat";
    desk.stop();
    lens.clear();
    byId("write-form").hidden = chat;
    byId("chat-form").hidden = !chat;
    byId("story").hidden = chat;
    talk.hidden = !chat;
    byId("text-title").textContent = chat ? "The chat" : "The text";
    byId("write-result").hidden = chat ? talk.children.length === 0 : byId("text").children.length === 0;
  });
}
