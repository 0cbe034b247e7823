// How a question and its answer look.

import { showMarkdown } from "./markdown.js";
import { seconds } from "./meters.js";

function make(name, kind, text = "") {
  const element = document.createElement(name);
  element.className = kind;
  element.textContent = text;
  return element;
}

function button(kind, text) {
  const element = make("button", `quiet ${kind}`, text);
  element.type = "button";
  return element;
}

/** The two list items of an exchange, and how to show what has changed of it. */
export class Shown {
  constructor(exchange) {
    this.exchange = exchange;
    const question = make("li", "user"), answer = make("li", "assistant");
    question.append(make("h3", "who", "You"), make("div", "text", exchange.question));
    this.text = make("div", "text");
    this.after = make("div", "after");
    answer.append(make("h3", "who", exchange.model), this.text, this.after);
    this.items = [question, answer];
    this.answer = answer;
    this.update();
  }

  update() {
    const { text, reasoning, state, error, facts } = this.exchange;
    const streaming = state === "streaming";
    if (reasoning) this.#showReasoning(reasoning, streaming && !text);
    showMarkdown(this.text, text);
    this.text.classList.toggle("waiting", streaming && !text && !reasoning);
    this.answer.setAttribute("aria-busy", streaming);
    if (streaming) return;
    this.after.replaceChildren();
    if (error) this.after.append(make("p", "error", error));
    const row = make("div", "facts");
    const told = tell(facts, state);
    if (told) row.append(make("span", "", told));
    if (text) row.append(button("copy", "Copy"));
    if (state === "failed") row.append(button("again", "Try again"));
    if (row.childElementCount > 0) this.after.append(row);
  }

  #showReasoning(reasoning, going) {
    if (!this.reasoning) {
      const details = make("details", "reasoning");
      this.title = make("summary", "");
      this.reasoning = make("div", "");
      details.append(this.title, this.reasoning);
      this.text.before(details);
    }
    const title = going ? "Reasoning…" : "Reasoning";
    if (this.title.textContent !== title) this.title.textContent = title;
    const shown = this.reasoning.textContent;
    if (reasoning.startsWith(shown)) this.reasoning.append(reasoning.slice(shown.length));
    else this.reasoning.textContent = reasoning;
  }
}

export const counted = (tokens) => `${tokens} ${tokens === 1 ? "token" : "tokens"}`;

/** What is known of an answer that has ended, in a line. */
function tell(facts, state) {
  if (!facts || facts.tokens === 0) return state === "stopped" ? "Stopped before the first token" : "";
  return [
    counted(facts.tokens),
    facts.rate === null ? null : `${facts.rate.toFixed(1)} tok/s`,
    facts.ttft === null ? null : `first after ${seconds(facts.ttft)}`,
    facts.lowest === null ? null : `lowest health ${facts.lowest.toFixed(2)}`,
    state === "stopped" ? "stopped" : facts.finish === "length" ? "cut at the token limit" : null,
  ].filter((part) => part !== null).join(" · ");
}
