//! Writes SVG: a few shapes and text.

use std::fmt::Write;

use super::style::{FONT_SIZE, INK};

/// A drawing, in pixels from the upper left.
pub(super) struct Svg {
    body: String,
    width: f64,
    height: f64,
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub fn new(width: f64, height: f64) -> Self {
        Self { body: String::new(), width, height }
    }

    fn add(&mut self, element: std::fmt::Arguments) {
        // Writing to a String cannot fail.
        let _ = self.body.write_fmt(element);
        self.body.push('\n');
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), ink: &str, width: f64, dashes: &str) {
        self.polyline(&[from, to], ink, width, dashes);
    }

    pub fn polyline(&mut self, points: &[(f64, f64)], ink: &str, width: f64, dashes: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!(
            r#"<polyline points="{}" fill="none" stroke="{ink}" stroke-width="{width}" stroke-dasharray="{}" stroke-linejoin="round"/>"#,
            points.join(" "),
            if dashes.is_empty() { "none" } else { dashes }
        ));
    }

    pub fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
        self.add(format_args!(
            r##"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}" stroke="{INK}" stroke-width="0.7"/>"##
        ));
    }

    pub fn dot(&mut self, (x, y): (f64, f64)) {
        self.add(format_args!(r##"<circle cx="{x:.1}" cy="{y:.1}" r="3.2" fill="{INK}" stroke="#ffffff" stroke-width="1.1"/>"##));
    }

    pub fn text(&mut self, (x, y): (f64, f64), text: &str, anchor: Anchor, ink: &str, bold: bool) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        // The font inside the program has one weight: a thin outline makes it bold.
        let bold = if bold { format!(r#" stroke="{ink}" stroke-width="0.45""#) } else { String::new() };
        self.add(format_args!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{ink}"{bold}>{}</text>"#, escape(text)));
    }

    /// The whole file.
    pub fn finish(self, title: &str) -> String {
        let Self { body, width, height } = self;
        format!(
            concat!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" "#,
                r#"font-family="DejaVu Sans, Verdana, sans-serif" font-size="{size}">"#,
                "\n<title>{title}</title>\n<rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
            ),
            w = width,
            h = height,
            size = FONT_SIZE,
            title = escape(title),
            body = body
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
