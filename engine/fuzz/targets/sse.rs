//! Server-sent events of a hint server, in whichever pieces they arrive, and the hints in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenflow_hint_api::{
    HintEvent, HintUrl,
    sse::{SseItem, SseParser},
};

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    let Some((&piece, stream)) = bytes.split_first() else { return };
    let mut parser = SseParser::new(4096);
    for chunk in stream.chunks(usize::from(piece).max(1)) {
        let read = parser.push(chunk, |item| {
            if let SseItem::Event { data, .. } = item {
                let _ = serde_json::from_str::<HintEvent>(&data);
            }
        });
        if read.is_err() {
            break;
        }
    }
    if let Ok(text) = std::str::from_utf8(stream) {
        let _ = text.parse::<HintUrl>();
    }
});
