// An experiment's modes side by side: a row for each measure, a column for each mode, the change against the first beside it.

const MODES = ["off", "global", "per-connection"];
// Whether more of it is better; measures that are not listed are shown without a verdict.
const MEASURES = {
  achieved_over_bound: ["Effective throughput / bound", true],
  effective_tokens_per_s: ["Effective tokens/s", true],
  healthy_tokens_per_s: ["Healthy streams, tokens/s", true],
  healthy_itl_p50_ms: ["Healthy streams, ITL p50 (ms)", false],
  healthy_itl_p99_ms: ["Healthy streams, ITL p99 (ms)", false],
  ttft_p99_ms: ["TTFT p99 (ms)", false],
  queued_bytes_p99: ["Queued bytes p99", false],
  bottleneck_rtt_p99_ms: ["Bottleneck RTT p99 (ms)", false],
  jain: ["Jain's fairness", true],
};

const number = (value) => (typeof value === "number" ? value : typeof value?.median === "number" ? value.median : null);
const show = (value) => (value === null ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** Shows a `summary.json`: the modes at its top or under `modes`. */
export function showExperiment(summary) {
  const table = document.getElementById("experiment"), state = document.getElementById("experiment-state");
  const all = summary?.modes ?? summary ?? {};
  const modes = MODES.filter((mode) => typeof all[mode] === "object" && all[mode] !== null);
  table.hidden = modes.length === 0;
  if (modes.length === 0) {
    state.textContent = "That file holds none of the modes off, global and per-connection.";
    return;
  }
  const runs = modes.map((mode) => all[mode].runs).find((runs) => typeof runs === "number" || Array.isArray(runs));
  const count = Array.isArray(runs) ? runs.length : runs;
  const name = summary.scenario ?? summary.experiment ?? summary.name;
  state.textContent = `${typeof name === "string" ? `${name}: ` : ""}medians${count ? ` of ${count} runs` : ""}; changes are against ${modes[0]}.`;

  table.replaceChildren();
  const head = table.createTHead().insertRow();
  for (const text of ["Measure", ...modes]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const [key, [label, moreIsBetter]] of Object.entries(MEASURES)) {
    const values = modes.map((mode) => number(all[mode][key]));
    if (values.every((value) => value === null)) continue;
    const row = body.insertRow(), title = document.createElement("th");
    title.scope = "row";
    title.textContent = label;
    row.append(title);
    const known = values.filter((value) => value !== null);
    const best = moreIsBetter ? Math.max(...known) : Math.min(...known);
    const most = Math.max(...known.map(Math.abs));
    values.forEach((value, index) => {
      const cell = row.insertCell();
      const change = index > 0 && values[0] && value !== null ? (value / values[0] - 1) * 100 : null;
      cell.textContent = show(value) + (change === null ? "" : ` (${change >= 0 ? "+" : "−"}${Math.abs(change).toFixed(0)} %)`);
      if (value === best) cell.className = "best";
      if (value === null) return;
      const bar = document.createElement("span"), fill = document.createElement("i");
      bar.className = "bar";
      bar.setAttribute("aria-hidden", "true");
      fill.style.width = `${most > 0 ? (Math.abs(value) / most) * 100 : 0}%`;
      bar.append(fill);
      cell.append(bar);
    });
  }
}

document.getElementById("summary").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (!file) return;
  try {
    showExperiment(JSON.parse(await file.text()));
  } catch {
    document.getElementById("experiment-state").textContent = `${file.name} is not JSON.`;
  }
});
