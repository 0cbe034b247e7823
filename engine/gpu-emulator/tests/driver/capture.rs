//! Graphs: what may be recorded, and what a replay does.

use cudarc::driver::sys::{CUgraphExec, CUresult, CUstream};
use tokenflow_gpu_emulator::Progress;

use crate::{
    card::{Args, Card},
    process::alone,
};

#[test]
fn a_replay_does_what_was_recorded() {
    alone("capture::a_replay_does_what_was_recorded", || {
        let card = Card::open(Progress::Mixed);
        let (stream, side, fork, join) = (card.stream(), card.stream(), card.event(), card.event());
        let add = card.function(c"add").unwrap();
        let [input, left, right, sum] = [0; 4].map(|_| card.allocate(256).unwrap());
        let (host, output) = (card.pinned(256), card.pinned(256));
        let args = |to, from, value| Args { to, from, count: 64, value };
        card.begin(stream).unwrap();
        card.to_device(input, host, 256, stream).unwrap();
        card.record(fork, stream).unwrap();
        card.wait_on_stream(side, fork).unwrap();
        card.launch(add, [1, 1, 1], 64, 0, args(left, input, 1), side).unwrap();
        card.launch(add, [1, 1, 1], 64, 0, args(right, input, 10), stream).unwrap();
        card.record(join, side).unwrap();
        card.wait_on_stream(stream, join).unwrap();
        card.launch(add, [1, 1, 1], 64, 0, args(sum, left, 100), stream).unwrap();
        card.to_host(output, sum, 256, stream).unwrap();
        let graph = card.end(stream).unwrap();
        for round in 0..20 {
            // SAFETY: pinned memory of that many words, and nothing is under way.
            unsafe { host.cast::<u32>().add(5).write(round) };
            card.replay(graph, stream).unwrap();
            card.replay(graph, stream).unwrap();
            card.wait(stream).unwrap();
            // SAFETY: as above.
            assert_eq!(unsafe { output.cast::<u32>().add(5).read() }, round + 101);
        }
        let counters = card.emulated.counters();
        assert_eq!((counters.graphs, counters.graph_launches, counters.launches, counters.errors), (1, 40, 3, 0));
    });
}

/// `wrong` is refused with `expected`, and spoils the capture.
fn spoils(name: &str, expected: CUresult, words: &str, wrong: impl Fn(&Card, CUstream) -> Result<(), CUresult>) {
    alone(name, || {
        let card = Card::open(Progress::Eager);
        let stream = card.stream();
        let memory = card.allocate(64).unwrap();
        card.begin(stream).unwrap();
        card.fill(memory, 0, 64, stream).unwrap();
        assert_eq!(wrong(&card, stream), Err(expected));
        card.has_told(words);
        assert_eq!(card.end(stream), Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        card.fill(memory, 0, 64, stream).unwrap();
        card.wait(stream).unwrap();
    });
}

const UNSUPPORTED: CUresult = CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;

#[test]
fn allocation() {
    spoils("capture::allocation", UNSUPPORTED, "an allocation while stream 0 is capturing", |card, _| card.allocate(16).map(drop));
}

#[test]
fn free() {
    alone("capture::free", || {
        let card = Card::open(Progress::Eager);
        let stream = card.stream();
        let memory = card.allocate(64).unwrap();
        card.begin(stream).unwrap();
        assert_eq!(card.free(memory), Err(UNSUPPORTED));
        assert_eq!(card.end(stream), Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
    });
}

#[test]
fn wait_for_the_stream() {
    spoils("capture::wait_for_the_stream", UNSUPPORTED, "waits for stream 0, which is capturing", Card::wait);
}

#[test]
fn wait_for_another_stream() {
    spoils("capture::wait_for_another_stream", UNSUPPORTED, "a wait for a stream while", |card, _| card.wait(card.stream()));
}

#[test]
fn query_of_an_event() {
    spoils("capture::query_of_an_event", UNSUPPORTED, "a query of an event while", |card, _| card.query(card.event()));
}

#[test]
fn query_of_what_is_recorded() {
    let captured = CUresult::CUDA_ERROR_CAPTURED_EVENT;
    spoils("capture::query_of_what_is_recorded", captured, "last recorded by a capture", |card, stream| {
        let event = card.event();
        card.record(event, stream)?;
        card.query(event)
    });
}

#[test]
fn wait_for_what_is_outside() {
    let isolation = CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    spoils("capture::wait_for_what_is_outside", isolation, "recorded outside the capture", |card, stream| {
        let (event, other) = (card.event(), card.stream());
        card.record(event, other)?;
        card.wait_on_stream(stream, event)
    });
}

#[test]
fn memory_that_is_not_pinned() {
    alone("capture::memory_that_is_not_pinned", || {
        let card = Card::open(Progress::Eager);
        let (memory, stream, bytes) = (card.allocate(16).unwrap(), card.stream(), [0_u8; 16]);
        card.begin(stream).unwrap();
        assert_eq!(card.to_device(memory, bytes.as_ptr(), 16, stream), Err(UNSUPPORTED));
        card.has_told("cannot be part of a graph");
        assert_eq!(card.end(stream), Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
    });
}

#[test]
fn work_that_is_not_joined() {
    alone("capture::work_that_is_not_joined", || {
        let card = Card::open(Progress::Eager);
        let (stream, side, fork) = (card.stream(), card.stream(), card.event());
        let memory = card.allocate(64).unwrap();
        card.begin(stream).unwrap();
        card.record(fork, stream).unwrap();
        card.wait_on_stream(side, fork).unwrap();
        card.fill(memory, 0, 64, side).unwrap();
        assert_eq!(card.end(stream), Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED));
        card.has_told("stream 1 took part in the capture of stream 0");
    });
}

fn one_kernel(card: &Card, stream: CUstream) -> (CUgraphExec, u64) {
    let add = card.function(c"add").unwrap();
    let (from, to) = (card.allocate(256).unwrap(), card.allocate(256).unwrap());
    card.begin(stream).unwrap();
    card.launch(add, [1, 1, 1], 64, 0, Args { to, from, count: 64, value: 1 }, stream).unwrap();
    (card.end(stream).unwrap(), to)
}

#[test]
fn memory_that_was_freed() {
    alone("capture::memory_that_was_freed", || {
        let card = Card::open(Progress::Lazy);
        let stream = card.stream();
        let (graph, memory) = one_kernel(&card, stream);
        card.replay(graph, stream).unwrap();
        card.wait(stream).unwrap();
        card.free(memory).unwrap();
        assert_eq!(card.replay(graph, stream), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        card.has_told("a graph is launched whose add works with memory that was freed");
    });
}

/// Two launches of a graph are ordered with each other, not with what is on other streams.
#[test]
fn a_replay_beside_another_stream() {
    alone("capture::a_replay_beside_another_stream", || {
        let card = Card::open(Progress::Eager);
        let (stream, other) = (card.stream(), card.stream());
        let (graph, memory) = one_kernel(&card, stream);
        card.replay(graph, stream).unwrap();
        card.replay(graph, other).unwrap();
        card.wait(other).unwrap();
        card.replay(graph, stream).unwrap();
        assert_eq!(card.fill(memory, 0, 16, other), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        card.has_told("nothing orders the two");
    });
}
