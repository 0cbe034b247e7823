//! The page at `/`: everything in the binary, nothing from elsewhere, and no data in it; what it shows it asks the other routes for.

use axum::{
    Router,
    http::{HeaderName, header},
    response::IntoResponse,
    routing::get,
};

/// Nothing but what this server serves may be loaded or asked, nothing inline runs, nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("dashboard/index.html")))
        .route("/dashboard.css", file(CSS, include_str!("dashboard/dashboard.css")))
        .route("/dashboard.js", file(JAVASCRIPT, include_str!("dashboard/dashboard.js")))
        .route("/charts.js", file(JAVASCRIPT, include_str!("dashboard/charts.js")))
        .route("/experiment.js", file(JAVASCRIPT, include_str!("dashboard/experiment.js")))
        .route("/uplot.js", file(JAVASCRIPT, include_str!("dashboard/uplot/uPlot.iife.min.js")))
        .route("/uplot.css", file(CSS, include_str!("dashboard/uplot/uPlot.min.css")))
        .route("/uplot-licence.txt", file("text/plain; charset=utf-8", include_str!("dashboard/uplot/LICENSE")))
}

fn file<S: Clone + Send + Sync + 'static>(kind: &'static str, text: &'static str) -> axum::routing::MethodRouter<S> {
    const NOSNIFF: (HeaderName, &str) = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    const NO_REFERRER: (HeaderName, &str) = (header::REFERRER_POLICY, "no-referrer");
    get(move || async move {
        ([(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, POLICY), NOSNIFF, NO_REFERRER], text).into_response()
    })
}
