// Experiments' modes side by side: for each measure a card with a lane for each mode, in it a dot for each run and a bar at their median, all
// on one scale. Beside it stands the change against the first mode.

// In this order; others, such as other laws of pacing, come after them.
const MODES = ["off", "global", "per-connection"];
// Whether more of it is better; and a value to mark on the scale, where one means something.
const MEASURES = {
  achieved_over_bound: { label: "Effective throughput / bound", more: true, mark: 1 },
  effective_tokens_per_s: { label: "Effective tokens/s", more: true },
  healthy_tokens_per_s: { label: "Healthy streams: tokens/s", more: true },
  healthy_itl_p50_ms: { label: "Healthy streams: inter-token latency p50 (ms)" },
  healthy_itl_p99_ms: { label: "Healthy streams: inter-token latency p99 (ms)" },
  ttft_p99_ms: { label: "Time to first token p99 (ms)" },
  queued_bytes_p99: { label: "Queued bytes p99" },
  held_bytes_p99: { label: "Held bytes p99, all streams" },
  bottleneck_rtt_p99_ms: { label: "RTT at the bottleneck p99 (ms)" },
  jain: { label: "Jain’s fairness among equals", more: true, mark: 1 },
  health_min: { label: "Lowest health", more: true, mark: 1 },
  overshoot: { label: "Overshoot after a step" },
  convergence_s: { label: "Time to converge (s)" },
};
const at = (id) => document.getElementById(id);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Those that can be chosen: { name, summary }. */
const known = [];

/** One measure of one mode: its median and its runs, or null. */
function measured(value) {
  if (isNumber(value)) return { median: value, runs: [value] };
  if (!isNumber(value?.median)) return null;
  const runs = Array.isArray(value.runs) ? value.runs.filter(isNumber) : [];
  return { median: value.median, runs: runs.length > 0 ? runs : [value.median] };
}

const hasMode = (modes) => MODES.some((mode) => isObject(modes?.[mode]));

/** The results under each congestion control, which may be the only one and have no name. */
function results(summary) {
  const controls = isObject(summary?.congestion_control) ? Object.entries(summary.congestion_control) : [];
  const all = controls.filter(([, result]) => hasMode(result?.modes)).map(([name, result]) => ({ ...result, name }));
  if (all.length > 0) return all;
  const modes = isObject(summary?.modes) ? summary.modes : summary;
  return hasMode(modes) ? [{ name: typeof summary.congestion_control === "string" ? summary.congestion_control : "", modes }] : [];
}

/** Adds summaries to choose from, and shows the first of them. */
export function addExperiments(summaries) {
  let wrong = 0;
  const first = known.length;
  for (const summary of summaries) {
    if (results(summary).length === 0) wrong++;
    else known.push({ name: String(summary.scenario ?? summary.experiment ?? summary.name ?? `Experiment ${known.length + 1}`), summary });
  }
  at("experiment-state").textContent = wrong === 0 ? "" : "A file holds none of the modes off, global and per-connection.";
  const select = at("scenario"), chosen = known.length > first ? first : select.value;
  select.replaceChildren(...known.map(({ name }, i) => new Option(name, i)));
  select.value = chosen;
  at("scenario-choice").hidden = known.length < 2;
  choose();
}

function choose() {
  const chosen = known[at("scenario").value];
  at("experiment").hidden = !chosen;
  if (!chosen) return;
  const all = results(chosen.summary), had = at("control-choice").querySelector(":checked")?.value;
  const control = all.find(({ name }) => name === had) ?? all[0];
  at("control-choice").hidden = all.length < 2;
  at("control-choice").replaceChildren(make("legend", "Congestion control"), ...all.map(({ name }) => {
    const input = document.createElement("input"), label = make("label", input, name);
    input.type = "radio";
    input.name = "control";
    input.value = name;
    input.checked = name === control.name;
    return label;
  }));
  show(chosen, control);
}

function show({ name, summary }, control) {
  const others = Object.keys(control.modes).filter((mode) => !MODES.includes(mode)).sort();
  const modes = [...MODES, ...others].filter((mode) => isObject(control.modes[mode]));
  const cards = Object.entries(MEASURES).flatMap(([key, about]) => {
    const values = modes.map((mode) => measured(control.modes[mode][key]));
    const mark = key === "effective_tokens_per_s" && isNumber(control.bound_tokens_per_s) ? control.bound_tokens_per_s : about.mark;
    return values.some((value) => value) ? [{ about: { ...about, mark }, values }] : [];
  });
  const runs = Math.max(0, ...cards.flatMap(({ values }) => values.map((value) => value?.runs.length ?? 0)));
  at("experiment-title-now").textContent = [name, control.name].filter(Boolean).join(", ");
  at("experiment-about").textContent = `Each dot is a run, each bar the median of ${runs} ${runs === 1 ? "run" : "runs"}; changes are against ${modes[0]}. A dotted line is the most that is possible.`;
  at("experiment-facts").textContent = [typeof summary.about === "string" ? summary.about : "", facts(summary)].filter(Boolean).join(" ");
  at("measures").replaceChildren(...cards.map(({ about, values }) => card(about, modes, values)));
  showAims(summary, control);
}

/** Where and when it was run, as far as the file says. */
function facts(summary) {
  const { date, machine, commit } = summary;
  const host = isObject(machine) ? [machine.cpu, isNumber(machine.cores) ? `${machine.cores} cores` : "", machine.kernel ? `Linux ${machine.kernel}` : ""].filter(Boolean).join(", ") : machine;
  const source = typeof commit === "string" ? `commit ${commit.slice(0, 12)}${commit.endsWith("-dirty") ? " with changes" : ""}` : "";
  return [date, host, source].filter((part) => typeof part === "string" && part).join(" · ");
}

function make(name, ...children) {
  const element = document.createElement(name);
  element.append(...children);
  return element;
}

function card({ label, more, mark }, modes, values) {
  const found = values.filter((value) => value), medians = found.map((value) => value.median);
  const best = more ? Math.max(...medians) : Math.min(...medians);
  const top = Math.max(mark ?? 0, ...found.flatMap((value) => [value.median, ...value.runs])) * 1.04 || 1;
  const table = document.createElement("table");
  const caption = make("caption", make("b", label), ` ${more ? "more" : "less"} is better`);
  table.append(caption);
  values.forEach((value, i) => {
    // Other laws are ways to pace per connection.
    const row = table.insertRow(), title = make("th", modes[i].replace(/^per-connection-/, ""));
    title.scope = "row";
    row.append(title);
    const lane = row.insertCell();
    lane.className = `lane lane-${Math.min(i, 3)}`;
    if (value) lane.append(strip(value, top, mark), heard(`runs: ${value.runs.map(shown).join(", ")}`));
    const median = row.insertCell(), change = row.insertCell();
    median.textContent = value ? shown(value.median) : "–";
    const isBest = value?.median === best && found.some((other) => other.median !== best);
    if (isBest) median.append(heard(", the best"));
    median.className = isBest ? "median best" : "median";
    change.className = "change";
    if (i > 0 && value && values[0]?.median > 0) change.textContent = percent(value.median / values[0].median - 1, more, change);
  });
  const element = make("div", table);
  element.className = "card measure";
  return element;
}

/** The change as a share, or many times; with a colour where it is worth one. */
function percent(change, more, cell) {
  const size = Math.abs(change) * 100;
  if (size >= 3) cell.classList.add(change > 0 === Boolean(more) ? "good" : "bad");
  return change >= 4 ? `× ${(1 + change).toFixed(change >= 9 ? 0 : 1)}` : `${size < 0.5 ? "" : change < 0 ? "−" : "+"}${size.toFixed(0)} %`;
}

/** Dots, the median's bar and the mark on a line from 0 to `top`. */
function strip({ median, runs }, top, mark) {
  const svg = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const x = (value) => `${((Math.max(0, value) / top) * 100).toFixed(2)}%`;
  const picture = svg("svg", { "aria-hidden": "true", class: "strip" });
  picture.append(svg("line", { class: "base", x1: 0, x2: "100%", y1: "50%", y2: "50%" }), svg("line", { class: "reach", x1: 0, x2: x(median), y1: "50%", y2: "50%" }));
  if (mark !== undefined) picture.append(svg("line", { class: "mark", x1: x(mark), x2: x(mark), y1: 0, y2: "100%" }));
  picture.append(...runs.map((run) => svg("circle", { cx: x(run), cy: "50%", r: 4 })), svg("line", { class: "median", x1: x(median), x2: x(median), y1: 2, y2: "95%" }));
  return picture;
}

function heard(text) {
  const element = make("span", text);
  element.className = "heard";
  return element;
}

function shown(value) {
  const size = Math.abs(value);
  if (size >= 100_000) return `${(value / 1000).toFixed(0)}k`;
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function showAims(summary, control) {
  const given = Array.isArray(control.aims) ? control.aims : Array.isArray(summary.aims) ? summary.aims : [];
  const aims = given.filter((aim) => isObject(aim) && (aim.congestion_control ?? control.name) === control.name);
  at("aims-title").hidden = at("aims").hidden = aims.length === 0;
  at("aims").replaceChildren(...aims.map((aim) => {
    const met = aim.met === true, verdict = make("b", met ? "✓ met" : "✗ missed");
    verdict.className = met ? "good" : "bad";
    const numbers = [isNumber(aim.value) ? `measured ${shown(aim.value)}` : null, wanted(aim.wanted)].filter(Boolean).join(", ");
    return make("li", verdict, ` ${aim.text ?? ""}`, numbers ? ` (${numbers})` : "");
  }));
}

function wanted(value) {
  if (isNumber(value?.at_least)) return `wanted at least ${value.at_least}`;
  if (isNumber(value?.at_most)) return `wanted at most ${value.at_most}`;
  return isNumber(value) || typeof value === "string" ? `wanted ${value}` : null;
}

at("scenario").addEventListener("change", choose);
at("control-choice").addEventListener("change", () => {
  const chosen = known[at("scenario").value], name = at("control-choice").querySelector(":checked").value;
  show(chosen, results(chosen.summary).find((result) => result.name === name));
});
at("summary").addEventListener("change", async (event) => {
  const summaries = [], wrong = [];
  for (const file of event.target.files) {
    try {
      summaries.push(JSON.parse(await file.text()));
    } catch {
      wrong.push(file.name);
    }
  }
  addExperiments(summaries);
  if (wrong.length > 0) at("experiment-state").textContent = `${wrong.join(", ")}: not JSON.`;
});
