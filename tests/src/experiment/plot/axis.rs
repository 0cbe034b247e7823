//! A linear axis whose ticks are round numbers.

use super::{
    style::{FAINT, INK, MUTED},
    svg::{Anchor, Svg},
};

/// A rectangle of the drawing that shows `x` from `x_range` and `y` from 0 to `y_max`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
    pub x_range: (f64, f64),
    pub y_max: f64,
}

/// Some four ticks from 0 that end at or above `max`.
pub(super) fn ticks(max: f64) -> Vec<f64> {
    let max = if max.is_finite() && max > 0.0 { max } else { 1.0 };
    let rough = max / 4.0;
    let magnitude = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|factor| factor * magnitude).find(|step| *step >= rough * 0.999).unwrap_or(rough);
    (0..=(max / step).ceil() as u32).map(|n| f64::from(n) * step).collect()
}

/// Thousands as `k`, no more digits than are told apart.
pub(super) fn label(value: f64) -> String {
    let trim = |text: String| if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    match value.abs() {
        v if v >= 1e6 => trim(format!("{:.2}", value / 1e6)) + "M",
        v if v >= 10_000.0 => trim(format!("{:.1}", value / 1e3)) + "k",
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => trim(format!("{value:.1}")),
        v if v >= 0.1 => trim(format!("{value:.2}")),
        _ => trim(format!("{value:.3}")),
    }
}

/// As [`label`], at most four characters wide up to 999 million: it stands below a bar.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 10e6 => format!("{:.0}M", value / 1e6),
        v if v >= 999_500.0 => format!("{:.1}M", value / 1e6),
        v if v >= 9_999.5 => format!("{:.0}k", value / 1e3),
        _ => label(value),
    }
}

impl Plane {
    pub fn x(&self, x: f64) -> f64 {
        self.left + (x - self.x_range.0) / (self.x_range.1 - self.x_range.0) * self.width
    }

    pub fn y(&self, y: f64) -> f64 {
        self.top + self.height - (y / self.y_max).clamp(0.0, 1.0) * self.height
    }

    /// Horizontal grid lines; labelled on the left where asked for.
    pub fn grid(&self, svg: &mut Svg, ticks: &[f64], labelled: bool) {
        for tick in ticks.iter().filter(|tick| **tick <= self.y_max * 1.001) {
            let y = self.y(*tick);
            svg.line((self.left, y), (self.left + self.width, y), if *tick == 0.0 { INK } else { FAINT }, 1.0, "");
            if labelled {
                svg.text((self.left - 6.0, y + 4.5), &label(*tick), Anchor::End, MUTED, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(1.0), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(ticks(290.0), [0.0, 100.0, 200.0, 300.0]);
        assert_eq!(ticks(0.0).last(), Some(&1.0));
        assert_eq!([label(0.25), label(0.0), label(1500.0), label(64_000.0), label(2.5e6)].join(" "), "0.25 0 1500 64k 2.5M");
        assert_eq!([short(5_875_357.0), short(76_744.0), short(999_700.0), short(1500.4), short(0.5)].join(" "), "5.9M 77k 1.0M 1500 0.5");
    }

    proptest! {
        #[test]
        fn ticks_reach_the_largest_value(max in 1e-6..1e9f64) {
            let ticks = ticks(max);
            prop_assert!((3..=6).contains(&ticks.len()), "{ticks:?}");
            prop_assert!(*ticks.last().unwrap() >= max * 0.999);
        }
    }
}
