//! What a hub answers, zero bytes between: a model's name, the list of its repository, an index of shards, ETag and size of a file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenflow_engine::weights::hub::{HubModel, Wanted, answers, wanted};
use ureq::http::{HeaderMap, HeaderValue, StatusCode};

fn lies_inside(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('/') && name.split('/').all(|part| part != "..")
}

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    let mut parts = bytes.split(|&b| b == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (name, list, index, etag, size) = (next(), next(), next(), next(), next());
    if let (Ok(info), Ok(name)) = (answers::repository(list), std::str::from_utf8(name)) {
        assert!(info.files.iter().all(|file| lies_inside(file)));
        if let Ok(model) = name.parse::<HubModel>() {
            let (needed, entry) = match wanted(&model, &info.files) {
                Ok(Wanted::Folder { files, index }) => (files, index.map(str::to_owned)),
                Ok(Wanted::Gguf { parts, first }) => (parts, Some(first)),
                Err(_) => return,
            };
            assert!(needed.iter().chain(&entry).all(|file| info.files.contains(file)), "{needed:?} {entry:?}");
        }
    }
    if let Ok(shards) = answers::shards(index) {
        assert!(shards.iter().all(|file| lies_inside(file) && !file.contains('/')));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in [("etag", etag), ("content-length", size), ("content-range", size)] {
        headers.extend(HeaderValue::from_bytes(value).ok().map(|value| (name.parse::<ureq::http::HeaderName>().expect("a name"), value)));
    }
    if let Ok(info) = answers::file(&headers, StatusCode::OK) {
        assert!(!info.etag.is_empty() && !info.etag.contains(['/', '.']), "{}", info.etag);
    }
    let _ = answers::first_byte(&headers, StatusCode::PARTIAL_CONTENT, 7);
});
