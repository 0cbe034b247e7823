//! Colours and bars that both views share: health is green, yellow or red, and drawn as a bar of blocks.

/// Whether colours are wanted (<https://no-color.org>).
pub fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Green,
    Yellow,
    Red,
    Dim,
}

impl Colour {
    /// The text in this colour, for a terminal.
    pub fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Red => 31,
            Self::Dim => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

pub fn health_colour(health: f64) -> Colour {
    match health {
        _ if health >= 0.8 => Colour::Green,
        _ if health >= 0.5 => Colour::Yellow,
        _ => Colour::Red,
    }
}

/// `width` columns; empty only at 0 and full only at 1.
pub fn health_bar(health: f64, width: usize) -> String {
    let full = (health * width as f64).round() as usize;
    let full = match health {
        _ if health <= 0.0 => 0,
        _ if health >= 1.0 => width,
        _ => full.clamp(1.min(width), width.saturating_sub(1)),
    };
    "█".repeat(full) + &"░".repeat(width - full)
}

const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One column of a line of bars; `share` of the highest, 0..=1.
pub fn spark(share: f64) -> char {
    SPARKS[(share.clamp(0.0, 1.0) * (SPARKS.len() - 1) as f64).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_never_looks_full_or_empty_when_it_is_not() {
        assert_eq!(health_bar(0.83, 10), "████████░░");
        assert_eq!(health_bar(0.999, 4), "███░");
        assert_eq!(health_bar(0.001, 4), "█░░░");
        assert_eq!(health_bar(0.0, 4), "░░░░");
        assert_eq!(health_bar(1.0, 4), "████");
        assert_eq!(health_bar(0.5, 0), "");
    }

    #[test]
    fn sparks_rise_with_the_share_whatever_it_is() {
        let sparks: String = [-1.0, 0.0, 0.5, 1.0, 2.0, f64::NAN].map(spark).iter().collect();
        assert_eq!(sparks, "▁▁▅██▁");
    }
}
