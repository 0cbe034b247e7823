// Talks to the engine: its models, and answers as they stream. Every failure is an error whose message is one sentence to show.

/** The engine wants another API key, or one at all. */
export class Unauthorized extends Error {}

/** What is wrong with the key, in a sentence; empty where it can be sent in a header. */
export function wrongKey(key) {
  return /^[\x20-\x7e]*$/.test(key) ? "" : "An API key has only printable ASCII characters; this one has others.";
}

/** The models that may be asked. */
export async function models(key) {
  const answer = await send("v1/models", key, { signal: AbortSignal.timeout(10_000) });
  return (await answer.json()).data;
}

/** Yields the chunks of an answer as they arrive; ends well only after a finish reason. */
export async function* answer(request, key, signal) {
  const response = await send("v1/chat/completions", key, { method: "POST", body: JSON.stringify(request), signal });
  let finished = false;
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") break;
      const chunk = read(data);
      if (chunk.error) throw new Error(sentence(chunk.error) ?? "The engine reported an error.");
      finished ||= chunk.choices?.some((choice) => choice.finish_reason);
      yield chunk;
    }
  } catch (error) {
    if (finished && error instanceof TypeError) return;
    throw error instanceof TypeError ? new Error("The connection broke before the answer was complete.") : error;
  }
  if (!finished) throw new Error("The connection ended before the answer was complete.");
}

function read(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new Error("The engine sent what is no part of an answer.");
  }
}

async function send(path, key, options) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The engine does not answer: is it running?");
  }
  if (response.status === 401) throw new Unauthorized(key ? "The API key is not the right one." : "This engine asks for an API key.");
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    throw new Error(sentence(body?.error) ?? `The engine answered ${response.status} ${response.statusText}.`);
  }
  return response;
}

function sentence(error) {
  const text = typeof error === "string" ? error : error?.message;
  return typeof text === "string" && text.trim() ? text.trim() : null;
}

/** The data of each server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const raw of lines) {
        const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        if (line !== "" || data.length === 0) continue;
        yield data.join("\n");
        data = [];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
