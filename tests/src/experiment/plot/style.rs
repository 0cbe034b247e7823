//! What the plots have in common: sizes, inks, and the ways in which series differ.

/// Letters.
pub(super) const FONT_SIZE: f64 = 13.0;
pub(super) const INK: &str = "#1c1c1c";
pub(super) const FAINT: &str = "#d9d9d9";
pub(super) const MUTED: &str = "#5a5a5a";

/// Ink and dashes of a line; three differ in grey by both.
pub(super) const LINES: [(&str, &str); 4] = [("#0b3c7d", ""), ("#d1600c", "7 4"), ("#2c8a57", "2 3"), ("#8a4fae", "9 3 2 3")];

/// Fills of bars, from light to dark.
pub(super) const FILLS: [&str; 6] = ["#d3d7de", "#8fb0d9", "#0b3c7d", "#e3b58b", "#9a5b1d", "#3f6b52"];
