//! Rate and health over time: a column for each mode, the same scales in all.

use super::{
    axis::{Plane, label, ticks},
    style::{FAINT, INK, LINES, MUTED},
    svg::{Anchor, Svg},
};

/// A mode's run.
#[derive(Clone, Debug)]
pub struct Column {
    pub title: String,
    pub curves: Vec<Curve>,
}

/// One group of streams.
#[derive(Clone, Debug)]
pub struct Curve {
    pub label: String,
    /// Seconds and tokens per second of one stream, the group's mean.
    pub rate: Vec<(f64, f64)>,
    /// Seconds and health, the group's mean.
    pub health: Vec<(f64, f64)>,
}

const LEFT: f64 = 84.0;
const TOP: f64 = 96.0;
const WIDTH: f64 = 330.0;
const GAP: f64 = 26.0;
const RATE_HEIGHT: f64 = 220.0;
const HEALTH_TOP: f64 = TOP + RATE_HEIGHT + 40.0;
const HEALTH_HEIGHT: f64 = 110.0;

/// The drawing; `events` are moments at which a link or a server changed, `seconds` the measured window.
pub fn time(title: &str, columns: &[Column], events: &[f64], seconds: f64) -> String {
    let width = LEFT + columns.len().max(1) as f64 * (WIDTH + GAP);
    let mut svg = Svg::new(width, HEALTH_TOP + HEALTH_HEIGHT + 56.0);
    svg.text((LEFT, 24.0), title, Anchor::Start, INK, true);
    legend(&mut svg, columns);

    let highest = highest(columns);
    let (rate_ticks, health_ticks) = (ticks(highest), [0.0, 0.5, 1.0]);
    let rate_max = rate_ticks.last().copied().unwrap_or(1.0);
    for (index, column) in columns.iter().enumerate() {
        let left = LEFT + index as f64 * (WIDTH + GAP);
        let plane = |top, height, y_max| Plane { left, top, width: WIDTH, height, x_range: (0.0, seconds), y_max };
        let (rate, health) = (plane(TOP, RATE_HEIGHT, rate_max), plane(HEALTH_TOP, HEALTH_HEIGHT, 1.0));
        svg.text((left, TOP - 12.0), &column.title, Anchor::Start, INK, true);
        rate.grid(&mut svg, &rate_ticks, index == 0);
        health.grid(&mut svg, &health_ticks, index == 0);
        for at in events.iter().filter(|at| (0.0..=seconds).contains(*at)) {
            for plane in [&rate, &health] {
                svg.line((plane.x(*at), plane.top), (plane.x(*at), plane.top + plane.height), FAINT, 1.5, "3 3");
            }
        }
        for (number, curve) in column.curves.iter().enumerate() {
            let (ink, dashes) = LINES[number % LINES.len()];
            for (plane, points) in [(&rate, &curve.rate), (&health, &curve.health)] {
                let points: Vec<_> = points.iter().map(|(x, y)| (plane.x(*x), plane.y(*y))).collect();
                if points.len() > 1 {
                    svg.polyline(&points, ink, 2.0, dashes);
                }
            }
        }
        for tick in ticks(seconds).iter().filter(|tick| **tick <= seconds * 1.001) {
            svg.text((health.x(*tick), HEALTH_TOP + HEALTH_HEIGHT + 18.0), &label(*tick), Anchor::Middle, MUTED, false);
        }
    }
    svg.text((8.0, TOP - 12.0), "tokens/s", Anchor::Start, MUTED, false);
    svg.text((8.0, HEALTH_TOP - 12.0), "health", Anchor::Start, MUTED, false);
    svg.text((width - GAP, HEALTH_TOP + HEALTH_HEIGHT + 40.0), "seconds", Anchor::End, MUTED, false);
    svg.finish(title)
}

/// Where the scale ends: at the largest rate, unless that is a burst far above nearly all others, which is then cut at the top.
fn highest(columns: &[Column]) -> f64 {
    let rates = columns.iter().flat_map(|column| &column.curves).flat_map(|curve| &curve.rate);
    let mut rates: Vec<f64> = rates.map(|point| point.1).collect();
    rates.sort_by(f64::total_cmp);
    let largest = rates.last().copied().unwrap_or(0.0);
    let usual = rates.get(rates.len() * 95 / 100).copied().unwrap_or(0.0);
    if usual > 0.0 { largest.min(1.5 * usual) } else { largest }
}

fn legend(svg: &mut Svg, columns: &[Column]) {
    let mut x = LEFT;
    for (number, curve) in columns.first().map_or(&[] as &[Curve], |column| &column.curves).iter().enumerate() {
        let (ink, dashes) = LINES[number % LINES.len()];
        svg.line((x, 47.0), (x + 34.0, 47.0), ink, 2.5, dashes);
        svg.text((x + 42.0, 51.5), &curve.label, Anchor::Start, INK, false);
        x += 42.0 + 8.0 * curve.label.chars().count() as f64 + 30.0;
    }
}
