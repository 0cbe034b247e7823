// Capture and replay. A graph is what was issued on each of its lanes (the streams that took part), and is replayed by issuing it again:
// the first lane on the stream of the launch, the others on streams of the graph's own.

#include <algorithm>

#include "driver.h"

namespace driver {

Status check_uncaptured(const char* call) {
    for (Capture* capture : state().captures) {
        if (!capture->active || capture->mode == RELAXED) continue;
        if (capture->mode == THREAD_LOCAL && capture->thread != std::this_thread::get_id()) continue;
        capture->invalid = call;
        return misuse(CAPTURE_UNSUPPORTED, std::string(call) + " while stream " + std::to_string(capture->lanes[0]->id) + " is capturing");
    }
    return OK;
}

Status begin_capture(Stream* stream, CaptureMode mode) {
    if (Status status = check_stream(stream)) return status;
    if (stream->capture) return misuse(INVALID_VALUE, "stream " + std::to_string(stream->id) + " is capturing already");
    Capture* capture = new Capture;
    capture->graph = new Graph;
    capture->graph->gpu = stream->gpu;
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->lanes.push_back(stream);
    capture->clocks.emplace_back();
    state().captures.push_back(capture);
    stream->capture = capture;
    stream->lane = 0;
    return OK;
}

Status end_capture(Stream* stream, Graph** to) {
    if (Status status = check_stream(stream)) return status;
    Capture* capture = stream->capture;
    *to = nullptr;
    if (!capture) return misuse(INVALID_VALUE, "the end of a capture that was not begun");
    if (stream->lane != 0) return misuse(CAPTURE_UNMATCHED, "a capture is ended on another stream than it was begun on");
    if (capture->mode != RELAXED && capture->thread != std::this_thread::get_id()) {
        return misuse(CAPTURE_WRONG_THREAD, "a capture is ended on another thread than it was begun on");
    }
    capture->active = false;
    auto& captures = state().captures;
    captures.erase(std::find(captures.begin(), captures.end(), capture));
    for (Stream* lane : capture->lanes) lane->capture = nullptr;
    if (!capture->invalid.empty()) return misuse(CAPTURE_INVALIDATED, "the capture was spoilt by " + capture->invalid);
    for (unsigned lane = 1; lane < capture->lanes.size(); lane++) {
        if (capture->clocks[0].get(lane) < capture->clocks[lane].get(lane)) {
            return misuse(CAPTURE_UNJOINED, "stream " + std::to_string(capture->lanes[lane]->id) + " took part in the capture of stream " +
                                                std::to_string(stream->id) + ", which does not wait for all that it did");
        }
    }
    capture->graph->lanes = unsigned(capture->lanes.size());
    state().alive.insert(capture->graph);
    *to = capture->graph;
    return OK;
}

Status capture_status(Stream* stream, int* to) {
    if (Status status = check_stream(stream)) return status;
    *to = !stream->capture ? 0 : stream->capture->invalid.empty() ? 1 : 2;
    return OK;
}

static Status add(Capture& capture, unsigned lane, Operation operation) {
    if (!capture.invalid.empty()) return CAPTURE_INVALIDATED;
    operation.lane = lane;
    capture.clocks[lane].set(lane, capture.clocks[lane].get(lane) + 1);
    capture.graph->operations.push_back(std::move(operation));
    return OK;
}

Status capture_operation(Stream* stream, Operation operation) { return add(*stream->capture, stream->lane, std::move(operation)); }

Status capture_record(Event* event, Stream* stream) {
    Capture& capture = *stream->capture;
    Operation operation;
    operation.kind = Operation::RECORD;
    operation.name = "record";
    operation.slot = capture.graph->slots++;
    event->slot = operation.slot;
    Status status = add(capture, stream->lane, std::move(operation));
    event->point.reset();
    event->capture = &capture;
    event->captured = capture.clocks[stream->lane];
    return status;
}

Status capture_wait(Stream* stream, Event* event) {
    Capture* capture = stream->capture;
    if (!event->capture) {
        if (!event->point) return OK;
        capture->invalid = "a wait for work outside it";
        return misuse(CAPTURE_ISOLATION, "stream " + std::to_string(stream->id) + ", which is capturing, waits for an event recorded outside the capture");
    }
    if (!event->capture->active) return misuse(CAPTURED_EVENT, "a wait for an event that was last recorded by a capture that has ended");
    if (capture && capture != event->capture) {
        capture->invalid = event->capture->invalid = "a wait of one capture for another";
        return misuse(CAPTURE_MERGE, "stream " + std::to_string(stream->id) + " waits for an event of another capture");
    }
    if (!capture) {
        capture = stream->capture = event->capture;
        stream->lane = unsigned(capture->lanes.size());
        capture->lanes.push_back(stream);
        capture->clocks.emplace_back();
    }
    Operation operation;
    operation.kind = Operation::WAIT;
    operation.name = "wait";
    operation.slot = event->slot;
    capture->clocks[stream->lane].join(event->captured);
    return add(*capture, stream->lane, std::move(operation));
}

Status instantiate(Graph* graph, Executable** to) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    if (!is_alive(graph)) return misuse(INVALID_HANDLE, "a graph that was destroyed or never made");
    if (Status status = check_uncaptured("the instantiation of a graph")) return status;
    Executable* executable = new Executable;
    executable->graph = *graph;
    for (unsigned lane = 1; lane < graph->lanes; lane++) {
        Stream* stream = nullptr;
        if (Status status = create_stream(&stream)) return status;
        executable->lanes.push_back(stream);
    }
    state().alive.insert(executable);
    state().counters.graphs++;
    *to = executable;
    return OK;
}

static Status replay(Executable& executable, Stream* stream) {
    std::vector<std::shared_ptr<Point>> points(executable.graph.slots);
    auto wait = [](Stream* lane, const std::shared_ptr<Point>& point) {
        Operation operation;
        operation.kind = Operation::WAIT;
        operation.name = "wait";
        operation.point = point;
        lane->clock.join(point->clock);
        return issue(lane, std::move(operation));
    };
    auto mark = [](Stream* lane, std::shared_ptr<Point>& point) {
        point = std::make_shared<Point>();
        point->stream = lane;
        point->number = lane->issued + 1;
        Operation operation;
        operation.kind = Operation::RECORD;
        operation.name = "record";
        operation.point = point;
        Status status = issue(lane, std::move(operation));
        point->clock = lane->clock;
        return status;
    };
    // Launches of one graph are never at the same time.
    if (executable.last) {
        if (Status status = wait(stream, executable.last)) return status;
    }
    for (const Operation& operation : executable.graph.operations) {
        Stream* lane = operation.lane == 0 ? stream : executable.lanes[operation.lane - 1];
        Status status = operation.kind == Operation::WAIT     ? wait(lane, points[operation.slot])
                        : operation.kind == Operation::RECORD ? mark(lane, points[operation.slot])
                                                              : issue(lane, operation);
        if (status) return status;
    }
    return mark(stream, executable.last);
}

Status launch_graph(Executable* executable, Stream* stream) {
    if (Status status = check_stream(stream)) return status;
    if (!is_alive(executable)) return misuse(INVALID_HANDLE, "a launch of a graph that was destroyed or never made");
    if (stream->capture) {
        stream->capture->invalid = "the launch of another graph";
        return misuse(CAPTURE_UNSUPPORTED, "a graph is launched on stream " + std::to_string(stream->id) + ", which is capturing");
    }
    Gpu& gpu = *stream->gpu;
    for (const Operation& operation : executable->graph.operations) {
        if (const emulator::Buffer* buffer = freed_memory_of(operation, gpu)) {
            return fail(gpu, ILLEGAL_ADDRESS, "a graph is launched whose " + describe(operation) + " works with memory that was freed: " +
                                                  gpu.device.place(buffer->start));
        }
    }
    state().counters.graph_launches++;
    return replay(*executable, stream);
}

Status destroy_graph(Graph* graph) {
    if (!is_alive(graph)) return misuse(INVALID_HANDLE, "a graph that was destroyed or never made");
    state().alive.erase(graph);
    graph->operations.clear();
    return OK;
}

Status destroy_executable(Executable* executable) {
    if (!is_alive(executable)) return misuse(INVALID_HANDLE, "a graph that was destroyed or never made");
    state().alive.erase(executable);
    executable->graph.operations.clear();
    return OK;
}

}  // namespace driver
