//! Small multiples: a panel for each measure, a bar for each mode's median, a dot for each run.

use super::{
    axis::{Plane, short, ticks},
    style::{FILLS, INK, MUTED},
    svg::{Anchor, Svg},
};

/// A median and its runs.
pub type Bar = (f64, Vec<f64>);

/// One measure.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    /// For each cluster (a congestion control), for each mode, a bar; `None` where it was not measured.
    pub clusters: Vec<Vec<Option<Bar>>>,
}

/// The whole figure.
#[derive(Clone, Debug)]
pub struct Bars {
    pub title: String,
    pub modes: Vec<String>,
    pub clusters: Vec<String>,
    pub panels: Vec<Panel>,
}

const COLUMNS: usize = 3;
const LEFT: f64 = 60.0;
const TOP: f64 = 104.0;
const WIDTH: f64 = 280.0;
const HEIGHT: f64 = 150.0;
const GAP: (f64, f64) = (76.0, 74.0);

pub fn bars(figure: &Bars) -> String {
    let rows = figure.panels.len().div_ceil(COLUMNS).max(1);
    let size = (LEFT + COLUMNS as f64 * (WIDTH + GAP.0) - GAP.0 + 20.0, TOP + rows as f64 * (HEIGHT + GAP.1) - 20.0);
    let mut svg = Svg::new(size.0, size.1);
    svg.text((LEFT, 24.0), &figure.title, Anchor::Start, INK, true);
    let mut x = LEFT;
    for (index, mode) in figure.modes.iter().enumerate() {
        svg.rect((x, 38.0), (18.0, 14.0), FILLS[index % FILLS.len()]);
        svg.text((x + 26.0, 50.0), mode, Anchor::Start, INK, false);
        x += 26.0 + 8.0 * mode.chars().count() as f64 + 26.0;
    }
    svg.dot((x + 6.0, 45.0));
    svg.text((x + 18.0, 50.0), "one run", Anchor::Start, INK, false);
    for (index, panel) in figure.panels.iter().enumerate() {
        let left = LEFT + (index % COLUMNS) as f64 * (WIDTH + GAP.0);
        let top = TOP + (index / COLUMNS) as f64 * (HEIGHT + GAP.1);
        draw(&mut svg, figure, panel, (left, top));
    }
    svg.finish(&figure.title)
}

fn draw(svg: &mut Svg, figure: &Bars, panel: &Panel, (left, top): (f64, f64)) {
    let values = panel.clusters.iter().flatten().flatten().flat_map(|(median, runs)| runs.iter().chain([median]));
    let ticks = ticks(values.fold(0.0, |most, value| f64::max(most, *value)));
    let y_max = ticks.last().copied().unwrap_or(1.0);
    let clusters = panel.clusters.len().max(1) as f64;
    let plane = Plane { left, top, width: WIDTH, height: HEIGHT, x_range: (0.0, clusters), y_max };
    svg.text((left - 40.0, top - 14.0), &panel.title, Anchor::Start, INK, true);
    plane.grid(svg, &ticks, true);
    let room = WIDTH / clusters / (figure.modes.len() as f64 + 1.0);
    for (cluster, modes) in panel.clusters.iter().enumerate() {
        let middle = plane.x(cluster as f64 + 0.5);
        for (mode, value) in modes.iter().enumerate() {
            let Some((median, runs)) = value else { continue };
            let centre = middle + (mode as f64 - (modes.len() as f64 - 1.0) / 2.0) * room;
            let y = plane.y(*median);
            svg.rect((centre - room * 0.4, y), (room * 0.8, top + HEIGHT - y), FILLS[mode % FILLS.len()]);
            for (index, run) in runs.iter().enumerate() {
                let aside = (index as f64 - (runs.len() as f64 - 1.0) / 2.0) * (room * 0.5 / runs.len() as f64);
                svg.dot((centre + aside, plane.y(*run)));
            }
            svg.text((centre, top + HEIGHT + 16.0), &short(*median), Anchor::Middle, INK, false);
        }
        if let Some(name) = figure.clusters.get(cluster) {
            svg.text((middle, top + HEIGHT + 34.0), name, Anchor::Middle, MUTED, false);
        }
    }
}
