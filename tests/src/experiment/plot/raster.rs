//! SVG to PNG.

use std::sync::Arc;

use anyhow::Context;
use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

/// DejaVu Sans, Latin letters only; its licence lies beside it.
const FONT: &[u8] = include_bytes!("font/DejaVuSans-Latin.ttf");
/// Pixels of the PNG for one of the SVG, so that letters are sharp.
const SCALE: f32 = 1.5;

/// The PNG's bytes.
///
/// # Errors
/// When the text is no SVG.
pub fn png(svg: &str) -> anyhow::Result<Vec<u8>> {
    let mut fonts = Database::new();
    fonts.load_font_data(FONT.to_vec());
    let options = Options { fontdb: Arc::new(fonts), font_family: "DejaVu Sans".to_owned(), ..Options::default() };
    let tree = Tree::from_str(svg, &options)?;
    let size = tree.size().to_int_size().scale_by(SCALE).context("the drawing is empty")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).context("the drawing is empty")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    Ok(pixels.encode_png()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::plot::{Bars, Column, Curve, Panel, bars, time};

    fn dark_pixels(svg: &str) -> usize {
        let pixels = Pixmap::decode_png(&png(svg).unwrap()).unwrap();
        pixels.pixels().iter().filter(|p| p.red() < 100 && p.green() < 100).count()
    }

    #[test]
    fn text_is_drawn_without_any_font_of_the_machine() {
        let text = |text: &str| {
            format!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" width="300" height="40" font-family="DejaVu Sans, sans-serif"><rect width="300" height="40" fill="white"/><text x="5" y="25">{text}</text></svg>"#
            )
        };
        assert_eq!(dark_pixels(&text("")), 0);
        assert!(dark_pixels(&text("Rate, tokens/s: 41 ≤ 50 – µ")) > 500);
    }

    #[test]
    fn both_plots_are_drawn() {
        let curve =
            Curve { label: "slow & <steady>".to_owned(), rate: vec![(0.0, 1.0), (5.0, 90.0)], health: vec![(0.0, 1.0), (5.0, 0.2)] };
        let column = Column { title: "off".to_owned(), curves: vec![curve] };
        assert!(dark_pixels(&time("mixed, cubic", &[column.clone(), column], &[2.5], 5.0)) > 2000);
        let panel = Panel { title: "Tokens/s".to_owned(), clusters: vec![vec![Some((2.0, vec![1.0, 2.0, 3.0])), None]] };
        let figure = Bars {
            title: "mixed".to_owned(),
            modes: vec!["off".to_owned(), "global".to_owned()],
            clusters: vec!["cubic".to_owned()],
            panels: vec![panel; 4],
        };
        assert!(dark_pixels(&bars(&figure)) > 2000);
    }
}
