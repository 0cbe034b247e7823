// Rate and Health of a stream while it arrives: numbers, and their last minute as lines.

const WINDOW = 1000, SHORTEST = 50;
/** A line's points: a minute of quarter seconds. */
const KEPT = 240, EVERY = 250;
const WIDTH = 120, HEIGHT = 28;
const at = (id) => document.getElementById(id);

export const grade = (health) => (health >= 0.8 ? "good" : health >= 0.5 ? "fair" : "bad");

/** Tokens/s over about the last second, from arrivals alone: steady for a steady stream, sinking once the next token is overdue. */
export class RateMeter {
  #arrivals = [];

  record(now, tokens) {
    const last = this.#arrivals.at(-1);
    if (last?.at === now) last.tokens += tokens;
    else this.#arrivals.push({ at: now, tokens });
    this.#arrivals.splice(0, this.#anchor(now));
  }

  /** `null` while too little has arrived to tell. */
  rate(now) {
    if (this.#arrivals.length === 0) return null;
    const from = this.#anchor(now), first = this.#arrivals[from], last = this.#arrivals.at(-1);
    const tokens = this.#arrivals.slice(from + 1).reduce((sum, arrival) => sum + arrival.tokens, 0);
    const bound = (count) => (count * 1000) / (now - first.at);
    if (last.at - first.at < SHORTEST) return now >= last.at + WINDOW ? bound(tokens + 1) : null;
    return Math.min((tokens * 1000) / (last.at - first.at), bound(tokens + last.tokens));
  }

  /** The last arrival that is older than the window, from which it is counted. */
  #anchor(now) {
    return Math.max(0, this.#arrivals.findLastIndex((arrival) => arrival.at + WINDOW <= now));
  }
}

/** What is known of one answer's stream; times are milliseconds of any clock. */
export class Progress {
  #meter = new RateMeter();

  constructor(now) {
    this.asked = now;
    this.tokens = 0;
    this.firstAt = this.lastAt = this.ended = this.health = this.lowest = null;
    this.paced = false;
    this.rates = [];
    this.healths = [];
  }

  take(now, chunk, hasText) {
    const total = chunk.usage?.completion_tokens;
    const tokens = typeof total === "number" ? Math.max(0, total - this.tokens) : hasText ? 1 : 0;
    this.tokens += tokens;
    if (hasText) {
      if (tokens > 0) this.#meter.record(now, tokens);
      if (this.firstAt === null) {
        this.firstAt = now;
        this.firstTokens = this.tokens;
      }
      this.lastAt = now;
    }
    const link = chunk.tokenflow;
    if (typeof link?.health === "number") {
      this.health = Math.min(1, Math.max(0, link.health));
      this.lowest = Math.min(this.lowest ?? 1, this.health);
    }
    if (typeof link?.paced === "boolean") this.paced = link.paced;
  }

  /** Adds a point to the lines. */
  sample(now) {
    for (const [line, value] of [[this.rates, this.#meter.rate(now)], [this.healths, this.health]]) {
      if (value === null) continue;
      line.push(value);
      if (line.length > KEPT) line.shift();
    }
  }

  rate(now) {
    return this.ended === null ? this.#meter.rate(now) : this.mean();
  }

  /** Tokens/s from the first to the last. */
  mean() {
    const seconds = (this.lastAt - this.firstAt) / 1000;
    return this.firstAt !== null && seconds * 1000 >= SHORTEST ? (this.tokens - this.firstTokens) / seconds : null;
  }

  /** Seconds. */
  ttft() {
    return this.firstAt === null ? null : (this.firstAt - this.asked) / 1000;
  }

  /** To keep with the answer. */
  facts(finish) {
    return { tokens: this.tokens, rate: this.mean(), ttft: this.ttft(), lowest: this.lowest, finish };
  }
}

/** The meters below the conversation; `show` at once where something begins or ends, else four times a second. */
export function follow(progress) {
  const draw = () => {
    const now = performance.now();
    if (progress.ended === null) progress.sample(now);
    show(progress, now);
  };
  draw();
  const timer = setInterval(draw, EVERY);
  return (now) => {
    clearInterval(timer);
    progress.ended = now;
    show(progress, now);
  };
}

export const seconds = (s) => `${s < 10 ? s.toFixed(2) : s.toFixed(1)} s`;

export function show(progress, now) {
  const rate = progress?.rate(now) ?? null, health = progress?.health ?? null, ttft = progress?.ttft() ?? null;
  at("rate-title").textContent = progress && progress.ended !== null ? "Mean rate" : "Rate";
  at("rate").textContent = rate === null ? "–" : rate.toFixed(1);
  at("health").textContent = health === null ? "–" : health.toFixed(2);
  at("health").className = at("health-line").style.color = "";
  if (health !== null) {
    at("health").className = grade(health);
    at("health-line").style.color = `var(--${grade(health)})`;
  }
  at("paced").hidden = !progress?.paced || progress.ended !== null;
  at("ttft").textContent = ttft === null ? "–" : seconds(ttft);
  at("tokens").textContent = progress ? progress.tokens : "–";
  line(at("rate-line"), progress?.rates ?? [], null);
  line(at("health-line"), progress?.healths ?? [], 1);
}

function line(svg, values, top) {
  if (svg.childElementCount === 0) {
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    for (const kind of ["area", "line"]) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("class", kind);
      svg.append(path);
    }
  }
  const highest = top ?? Math.max(1, ...values) * 1.05;
  // Five seconds fill the line already; from then on it gathers a minute.
  const step = WIDTH / Math.max(values.length - 1, 20);
  const points = values.map((value, i) => `${(i * step).toFixed(1)},${(HEIGHT * (1 - Math.min(value / highest, 1))).toFixed(1)}`);
  const [area, stroke] = svg.children, drawn = points.length > 1;
  stroke.setAttribute("d", drawn ? `M${points.join("L")}` : "");
  area.setAttribute("d", drawn ? `M0,${HEIGHT}L${points.join("L")}L${((values.length - 1) * step).toFixed(1)},${HEIGHT}Z` : "");
}
