//! The chat page at `/`: files inside the binary that hold nothing secret, so they are open where the API wants a key, for which the page asks.
//! All its addresses are relative, so that it works under a proxy's path too.

use std::sync::Arc;

use axum::{Router, response::IntoResponse, routing::get};
use tokenflow_hint_api::page::{PageFile, THEME_CSS};

use super::ApiState;

const FILES: &[PageFile] = &[
    PageFile::html("/", include_str!("page/index.html")),
    PageFile::css("/chat/theme.css", THEME_CSS),
    PageFile::css("/chat/chat.css", include_str!("page/chat.css")),
    PageFile::javascript("/chat/chat.js", include_str!("page/chat.js")),
    PageFile::javascript("/chat/engine.js", include_str!("page/engine.js")),
    PageFile::javascript("/chat/markdown.js", include_str!("page/markdown.js")),
    PageFile::javascript("/chat/messages.js", include_str!("page/messages.js")),
    PageFile::javascript("/chat/meters.js", include_str!("page/meters.js")),
];

pub(super) fn routes() -> Router<Arc<ApiState>> {
    FILES
        .iter()
        .fold(Router::new(), |router, file| router.route(file.path, get(move || async { (file.headers(), file.text).into_response() })))
}
