//! Plots of an experiment, each drawn once as SVG, from which the PNG is rendered with a font of its own: no machine's fonts matter.
//!
//! Nothing is told by colour alone: lines differ by dashes too, and fills by lightness, so that a grey print says the same.

mod axis;
mod bars;
mod raster;
mod style;
mod svg;
mod time;

pub use bars::{Bars, Panel, bars};
pub use raster::png;
pub use time::{Column, Curve, time};
