// Line charts over the last ten minutes, in the page's own colours, light or dark.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const charts = [];
const CLOCK = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

/** A chart in `figure` of `series` ([{ label, color, fill }], colours being names of CSS variables). `max` fixes the scale's top. */
export function chart(figure, title, series, { max, digits = 0 } = {}) {
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  figure.append(caption);
  const axis = (more) => ({ stroke: () => css("--soft"), grid: { stroke: () => css("--line"), width: 1 }, ticks: { show: false }, ...more });
  const plot = new uPlot({
    width: 300,
    height: 180,
    cursor: { y: false },
    scales: { y: { range: (_, low, high) => [0, max ?? Math.max(1, (high ?? 1) * 1.1)] } },
    axes: [axis({ space: 70, size: 30, values: (_, moments) => moments.map((at) => new Date(at * 1000).toLocaleTimeString([], CLOCK)) }), axis({ size: 48 })],
    series: [
      { value: (_, at) => (at == null ? "–" : new Date(at * 1000).toLocaleTimeString([], { ...CLOCK, second: "2-digit" })) },
      ...series.map(({ label, color, fill }) => ({
        label,
        width: 2,
        points: { show: false },
        stroke: () => css(color),
        fill: fill ? () => css(color) + "22" : undefined,
        value: (_, value) => (value == null ? "–" : value.toFixed(digits)),
      })),
    ],
  }, series.map(() => []).concat([[]]), figure);
  const fit = () => {
    const width = figure.clientWidth - 20;
    if (width > 0 && width !== plot.width) plot.setSize({ width, height: 180 });
  };
  new ResizeObserver(fit).observe(figure);
  fit();
  charts.push(plot);
  return (data) => {
    fit();
    plot.setData(data);
    // Where nothing points at the chart, its legend tells the latest.
    if (plot.cursor.idx == null && data[0].length > 0) plot.setLegend({ idx: data[0].length - 1 });
  };
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((plot) => plot.redraw(true, true)));
