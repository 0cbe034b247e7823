//! The page at `/`: everything in the binary, nothing from elsewhere, and no data in it; what it shows it asks the other routes for.

use axum::{Router, response::IntoResponse, routing::get};
use tokenflow_hint_api::page::{PageFile, THEME_CSS};

const FILES: &[PageFile] = &[
    PageFile::html("/", include_str!("dashboard/index.html")),
    PageFile::css("/theme.css", THEME_CSS),
    PageFile::css("/dashboard.css", include_str!("dashboard/dashboard.css")),
    PageFile::javascript("/dashboard.js", include_str!("dashboard/dashboard.js")),
    PageFile::javascript("/charts.js", include_str!("dashboard/charts.js")),
    PageFile::javascript("/experiment.js", include_str!("dashboard/experiment.js")),
    PageFile::javascript("/uplot.js", include_str!("dashboard/uplot/uPlot.iife.min.js")),
    PageFile::css("/uplot.css", include_str!("dashboard/uplot/uPlot.min.css")),
    PageFile::plain("/uplot-licence.txt", include_str!("dashboard/uplot/LICENSE")),
];

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES
        .iter()
        .fold(Router::new(), |router, file| router.route(file.path, get(move || async { (file.headers(), file.text).into_response() })))
}
