// Asks the server once a second and shows what it says. All text goes in as text, never as HTML.

import { chart } from "/charts.js";
import { addExperiments } from "/experiment.js";

const SHOWN = 100, KEPT = 600, TRAIL = 60;
const at = (id) => document.getElementById(id);
const grade = (health) => (health >= 0.8 ? "good" : health >= 0.5 ? "fair" : "bad");

/** Where this tab keeps the token, apart from other pages of its origin; a forbidden storage only forgets. */
const TOKEN = `${location.pathname}token`;
let token = null;
try {
  token = sessionStorage.getItem(TOKEN);
} catch {}

async function ask(path) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (answer.status === 401) throw new Unauthorized();
  if (!answer.ok) throw new Refused((await answer.json().catch(() => null))?.error?.message ?? answer.statusText);
  return answer.json();
}

class Unauthorized extends Error {}
/** With the server's own sentence. */
class Refused extends Error {}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = at("token").value.trim();
  at("token").value = "";
  at("token").focus();
  if (!/^[\x20-\x7e]*$/.test(typed)) return say("A token has only printable ASCII characters; this one has others.");
  token = typed;
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {}
  pause(false);
  round();
  fetchExperiments();
});

function cell(row, text, kind) {
  const cell = row.insertCell();
  cell.textContent = text;
  if (kind) cell.className = kind;
  return cell;
}

function healthCell(row, health) {
  const shown = cell(row, health.toFixed(2), grade(health));
  const bar = document.createElement("span"), fill = document.createElement("i");
  bar.className = "bar";
  bar.setAttribute("aria-hidden", "true");
  fill.style.width = `${health * 100}%`;
  bar.append(fill);
  shown.append(bar);
}

/** A connection's health in the last minute that this page has seen, a point a second. */
let trails = new Map();

function trailCell(row, trail) {
  const svg = (name) => document.createElementNS("http://www.w3.org/2000/svg", name), picture = svg("svg"), path = svg("path");
  picture.setAttribute("viewBox", `0 0 ${TRAIL - 1} 10`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  // The newest at the right.
  path.setAttribute("d", `M${trail.map((health, i) => `${TRAIL - trail.length + i},${(10 - 10 * health).toFixed(2)}`).join("L")}`);
  picture.append(path);
  cell(row, "", `wide trail ${grade(Math.min(...trail))}`).append(picture);
}

function bytes(count) {
  if (count < 10_000) return `${count} B`;
  return count < 10_000_000 ? `${(count / 1e3).toFixed(0)} kB` : `${(count / 1e6).toFixed(0)} MB`;
}

function showConnections(connections) {
  trails = new Map(connections.map((c) => [c.cookie, [...(trails.get(c.cookie) ?? []), c.health].slice(-TRAIL)]));
  at("rows").replaceChildren(...connections.map((c) => {
    const row = document.createElement("tr");
    cell(row, c.peer === "0.0.0.0:0" ? `hidden (${c.cookie})` : c.peer);
    healthCell(row, c.health);
    trailCell(row, trails.get(c.cookie));
    // Health is the least of them.
    const terms = [c.terms.delay, c.terms.loss, c.terms.queue], least = Math.min(...terms);
    for (const term of terms) cell(row, term.toFixed(2), term === least && term < 1 ? `${grade(term)} cause` : grade(term));
    cell(row, c.token_rate === null ? "–" : c.token_rate.toFixed(1));
    cell(row, (c.srtt_us / 1000).toFixed(1), "wide");
    cell(row, bytes(c.undelivered_bytes));
    cell(row, c.retransmits, "wide");
    return row;
  }));
  at("nobody").hidden = connections.length > 0;
}

function showHosts(hosts) {
  at("hosts").hidden = hosts.length < 2;
  at("host-rows").replaceChildren(...hosts.map((host) => {
    const row = document.createElement("tr");
    cell(row, host.own ? `${host.host} (this one)` : host.host);
    healthCell(row, host.hint.health_factor);
    cell(row, host.hint.connections);
    cell(row, host.tracked, "wide");
    cell(row, host.own ? "now" : `${(host.age_ms / 1000).toFixed(1)} s ago`);
    return row;
  }));
}

const samples = [];
let plots;

function makePlots() {
  plots = {
    health: chart(at("health-chart"), "Health, 0 to 1", [{ label: "Health", color: "--good", fill: true }], { max: 1, digits: 2 }),
    rate: chart(at("rate-chart"), "Tokens/s delivered", [{ label: "Tokens/s", color: "--first", fill: true }], { digits: 1 }),
    budget: chart(at("budget-chart"), "Engine: tokens per step", [{ label: "Most", color: "--soft" }, { label: "Budget", color: "--first" }]),
    paced: chart(at("paced-chart"), "Engine: requests", [{ label: "Running", color: "--first" }, { label: "Paced", color: "--second" }]),
  };
}

function showHistory({ now_ms, engine, samples: latest }) {
  samples.push(...latest);
  samples.splice(0, Math.max(0, samples.length - KEPT));
  const began = (Date.now() - now_ms) / 1000;
  const times = samples.map((sample) => began + sample.at_ms / 1000);
  const of = (pick) => samples.map((sample) => pick(sample) ?? null);
  plots.health([times, of((s) => s.health)]);
  plots.rate([times, of((s) => s.tokens_per_s)]);
  at("budget-chart").hidden = at("paced-chart").hidden = !engine;
  const last = samples.at(-1);
  at("no-engine").hidden = !engine || last?.engine !== undefined;
  if (engine) {
    plots.budget([times, of((s) => s.engine?.max_num_batched_tokens), of((s) => s.engine?.step_token_budget)]);
    plots.paced([times, of((s) => s.engine?.running_requests), of((s) => s.engine?.paced_requests)]);
  }
  if (!last) return;
  at("rate").textContent = last.tokens_per_s.toFixed(1);
  at("limited").textContent = last.network_limited;
  at("health-chart").setAttribute("aria-label", `Health over time; now ${last.health.toFixed(2)}`);
  at("rate-chart").setAttribute("aria-label", `Tokens per second over time; now ${last.tokens_per_s.toFixed(1)}`);
}

function showHint(hint) {
  at("health").textContent = hint.health_factor.toFixed(2);
  at("health").className = grade(hint.health_factor);
  at("active").textContent = hint.connections;
  at("queued").textContent = bytes(hint.metrics.queued_bytes);
  const source = { ebpf: "the kernel program", sock_diag: "socket diagnostics" }[hint.source] ?? hint.source;
  say(`Measured by ${source}.`);
}

function say(text) {
  // A status that is set again is read aloud again.
  if (at("state").textContent !== text) at("state").textContent = text;
}

/** Rounds begun, and the last of them that has ended: the others are of no interest any more. */
let asked = 0, ended = 0;
/** What moves by itself can be held. */
let paused = false;
function pause(on) {
  paused = on;
  at("pause").setAttribute("aria-pressed", paused);
}
async function round() {
  const number = ++asked;
  try {
    const after = samples.at(-1)?.seq ?? 0;
    const [hint, history, connections, hosts] = await Promise.all(
      ["/hint", `/history?after=${after}`, `/connections?limit=${SHOWN}`, "/hosts"].map(ask));
    if (number !== asked || paused) return;
    // A server that was started again counts from the beginning.
    if (samples.length > 0 && history.now_ms < samples.at(-1).at_ms) {
      samples.length = 0;
      history.samples = [];
    }
    at("login").hidden = true;
    showHint(hint);
    showHistory(history);
    showConnections(connections);
    showHosts(hosts);
  } catch (error) {
    if (number !== asked || paused) return;
    const refused = error instanceof Unauthorized;
    at("login").hidden = !refused;
    if (refused) say(token ? "The token is not the right one." : "");
    else say(error instanceof Refused ? error.message : "The hint server does not answer; trying again…");
  } finally {
    if (number === asked) ended = number;
  }
}

makePlots();
round();
setInterval(() => {
  // A round that is slower than this is waited for, or its answers would never be shown.
  if (at("login").hidden && !paused && asked === ended) round();
}, 1000);

at("pause").addEventListener("click", () => {
  pause(!paused);
  if (paused) say("Paused.");
  else round();
});

const fetchExperiments = () => ask("/experiments").then(addExperiments, () => {});
fetchExperiments();
