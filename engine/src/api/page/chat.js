// The page: what is typed is asked, what arrives is shown, and what was said before is the context of what comes next.

import { Unauthorized, answer, models, wrongKey } from "./engine.js";
import { Progress, follow, show } from "./meters.js";
import { Shown, counted } from "./messages.js";

const at = (id) => document.getElementById(id);
const prompt = at("prompt"), log = at("log");
const SETTINGS = ["system", "temperature", "max-tokens"];

/** What this tab remembers, apart from other pages of its origin; a full or forbidden storage only forgets. */
const kept = {
  named: (name) => `${location.pathname}${name}`,
  get: (name) => {
    try {
      return JSON.parse(sessionStorage.getItem(kept.named(name)));
    } catch {
      return null;
    }
  },
  set: (name, value) => {
    try {
      // What is too large now must not leave what was true before.
      sessionStorage.removeItem(kept.named(name));
      sessionStorage.setItem(kept.named(name), JSON.stringify(value));
    } catch {}
  },
};

let key = kept.get("key");
/** In the order of the conversation: { question, model, text, reasoning, state, error, facts }. */
let exchanges = [];
let shown = [];
/** Ends the answer that is streaming; null where none is. */
let stop = null;
/** Whether the reader is at the end, and stays there as text comes. */
let pinned = true;

function say(text) {
  if (at("state").textContent !== text) at("state").textContent = text;
}

function complain(sentence) {
  at("problem").textContent = sentence;
  at("problem").hidden = !sentence;
}

/** Asks for the key; what could not be asked without it is asked again with it. */
function askForKey(sentence) {
  at("login").firstElementChild.textContent = sentence;
  at("login").hidden = false;
  at("key").value = "";
  at("key").focus();
}

at("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const typed = at("key").value.trim();
  if (wrongKey(typed)) return askForKey(wrongKey(typed));
  key = typed;
  kept.set("key", key);
  if (!(await findModels())) return;
  prompt.focus();
  const last = exchanges.at(-1);
  if (last?.refused) ask(last.question, last);
});

/** Fills the list of models; whether that went well. */
async function findModels() {
  try {
    const list = await models(key), select = at("model"), chosen = select.value || kept.get("model");
    select.replaceChildren(...list.map(({ id }) => new Option(id, id, false, id === chosen)));
    select.disabled = list.length === 0;
    at("login").hidden = true;
    complain(list.length === 0 ? "The engine lists no model." : "");
    return list.length > 0;
  } catch (error) {
    if (error instanceof Unauthorized) askForKey(error.message);
    else complain(error.message);
    return false;
  }
}

// -- Asking

function request(exchange) {
  const messages = [];
  const system = at("system").value.trim();
  if (system) messages.push({ role: "system", content: system });
  for (const { question, text, state } of exchanges.slice(0, exchanges.indexOf(exchange))) {
    // What failed was never part of the conversation.
    if (state === "failed" || !text) continue;
    messages.push({ role: "user", content: question }, { role: "assistant", content: text });
  }
  messages.push({ role: "user", content: exchange.question });
  const body = { model: exchange.model, messages, stream: true };
  // Counted by the engine, since a chunk may hold several tokens.
  body.stream_options = { include_usage: true, continuous_usage_stats: true, include_health: true };
  if (at("temperature").value !== "") body.temperature = at("temperature").valueAsNumber;
  if (at("max-tokens").value !== "") body.max_tokens = at("max-tokens").valueAsNumber;
  return body;
}

/** Asks a question, in the place of `failed` where that is the last exchange. Calls `taken` once it is part of the conversation. */
async function ask(question, failed = null, taken = () => {}) {
  if (stop) return;
  const abort = new AbortController();
  stop = () => abort.abort();
  busy(true);
  if (!at("model").value) {
    say("Asking for the models…");
    const stopped = new Promise((done) => abort.signal.addEventListener("abort", () => done(false)));
    if (!(await Promise.race([findModels(), stopped]))) {
      stop = null;
      busy(false);
      return say("");
    }
  }
  taken();
  if (failed && failed === exchanges.at(-1)) {
    exchanges.pop();
    shown.pop().items.forEach((item) => item.remove());
  }
  const exchange = { question, model: at("model").value, text: "", reasoning: "", state: "streaming", error: null, facts: null };
  exchanges.push(exchange);
  const view = present(exchange);
  busy(true);
  complain("");
  say("Waiting for the first token…");
  toEnd();
  const progress = new Progress(performance.now());
  const unfollow = follow(progress);
  let finish = null, frame = 0;
  const draw = () => {
    frame = 0;
    view.update();
    if (pinned) toEnd();
  };
  try {
    for await (const chunk of answer(request(exchange), key, abort.signal)) {
      const choice = chunk.choices?.[0], delta = choice?.delta ?? {};
      const text = delta.content ?? "", reasoning = delta.reasoning ?? delta.reasoning_content ?? "";
      exchange.text += text;
      exchange.reasoning += reasoning;
      finish = choice?.finish_reason ?? finish;
      const first = progress.firstAt === null;
      progress.take(performance.now(), chunk, Boolean(text || reasoning));
      if (first && progress.firstAt !== null) {
        say("Answering…");
        show(progress, performance.now());
      }
      frame ||= requestAnimationFrame(draw);
    }
    exchange.state = "complete";
  } catch (error) {
    const refused = error instanceof Unauthorized;
    exchange.state = abort.signal.aborted ? "stopped" : "failed";
    exchange.error = abort.signal.aborted ? null : error.message;
    exchange.refused = refused && !abort.signal.aborted;
    if (exchange.refused) askForKey(error.message);
  }
  cancelAnimationFrame(frame);
  stop = null;
  unfollow(performance.now());
  // Cleared meanwhile.
  if (exchanges.at(-1) !== exchange) return show(null, 0);
  exchange.facts = progress.facts(finish);
  draw();
  busy(false);
  keep();
  const ended = { complete: "Complete", stopped: "Stopped", failed: "Failed" }[exchange.state];
  say(exchange.error ?? `${ended}: ${counted(exchange.facts.tokens)}`);
}

function busy(streaming) {
  at("go").textContent = streaming ? "Stop" : "Send";
  at("clear").disabled = exchanges.length === 0;
  at("empty").hidden = exchanges.length > 0;
}

function keep() {
  kept.set("exchanges", exchanges);
}

function present(exchange) {
  const view = new Shown(exchange);
  shown.push(view);
  at("messages").append(...view.items);
  return view;
}

// -- Following the end, unless the reader has gone up

function toEnd() {
  log.scrollTop = log.scrollHeight;
  pinned = true;
}

/** How far the end is below what is seen; a line more or less is nothing. */
const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;
let sizes = "";
function placed() {
  sizes = [log.clientHeight, log.scrollHeight].join();
  at("latest").hidden = isAtEnd();
}
log.addEventListener("scroll", () => {
  // What moves because its size has changed was not moved by the reader.
  if (isAtEnd()) pinned = true;
  else if (sizes === [log.clientHeight, log.scrollHeight].join()) pinned = false;
  placed();
}, { passive: true });
const resized = new ResizeObserver(() => {
  if (pinned) toEnd();
  placed();
});
resized.observe(log);
resized.observe(at("messages"));
at("latest").addEventListener("click", () => {
  toEnd();
  prompt.focus();
});

// -- Typing

function fit() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + prompt.offsetHeight - prompt.clientHeight}px`;
}

function send() {
  const question = prompt.value.trim();
  const wrong = SETTINGS.map(at).find((field) => field.validity && !field.validity.valid);
  if (wrong) {
    settings(true);
    wrong.focus();
    return say(`${wrong.labels[0].textContent}: ${wrong.validationMessage}`);
  }
  if (!question) return;
  ask(question, null, () => {
    // What was typed meanwhile stays.
    if (prompt.value.trim() === question) prompt.value = "";
    fit();
  });
}

prompt.addEventListener("input", fit);
prompt.addEventListener("keydown", (event) => {
  // An input method's Enter takes its suggestion.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (stop) stop();
  else send();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (stop) {
    stop();
    prompt.focus();
  } else if (!at("settings").hidden) {
    settings(false);
    at("settings-button").focus();
  }
});
for (const idea of document.querySelectorAll(".idea")) {
  idea.addEventListener("click", () => {
    prompt.focus();
    ask(idea.textContent);
  });
}

// -- Copying

async function copy(text) {
  // Browsers only lend the clipboard to pages that came over HTTPS or from this machine.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "heard";
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("not copied");
}

at("messages").addEventListener("click", async ({ target }) => {
  const view = shown.find(({ answer }) => answer.contains(target));
  if (target.matches(".again")) return ask(view.exchange.question, view.exchange);
  if (!target.matches(".copy")) return;
  const code = target.closest("figure")?.querySelector("code");
  const said = await copy(code ? code.textContent : view.exchange.text).then(() => "Copied", () => "Not copied");
  target.focus();
  target.textContent = said;
  say(`${said}.`);
  setTimeout(() => (target.textContent = "Copy"), 2000);
});

// -- Settings

function settings(open) {
  at("settings").hidden = !open;
  at("settings-button").setAttribute("aria-expanded", open);
}

at("settings-button").addEventListener("click", () => {
  settings(at("settings").hidden);
  if (!at("settings").hidden) at("system").focus();
});
at("settings").addEventListener("input", () => kept.set("settings", SETTINGS.map((id) => at(id).value)));
at("model").addEventListener("change", () => kept.set("model", at("model").value));
at("clear").addEventListener("click", () => {
  stop?.();
  exchanges = [];
  shown = [];
  at("messages").replaceChildren();
  keep();
  busy(false);
  show(null, 0);
  say("A new conversation.");
  prompt.focus();
});

/** Shows the conversation that this tab had; what is none is forgotten. */
function restore() {
  const stored = kept.get("exchanges"), isText = (text) => typeof text === "string";
  try {
    exchanges = stored.filter(({ question, model, text, reasoning }) => [question, model, text, reasoning].every(isText));
    // The page was left before its end.
    exchanges.filter(({ state }) => state === "streaming").forEach((exchange) => (exchange.state = "stopped"));
    exchanges.forEach(present);
  } catch {
    exchanges = [];
    shown = [];
    at("messages").replaceChildren();
  }
}

const settled = kept.get("settings");
SETTINGS.forEach((id, i) => (at(id).value = settled?.[i] ?? ""));
restore();
busy(false);
show(null, 0);
toEnd();
findModels();
