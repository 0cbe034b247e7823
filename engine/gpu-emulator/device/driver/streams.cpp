// Streams and events: what is issued, what has run, and what comes after what.

#include <algorithm>
#include <chrono>

#include "driver.h"

namespace driver {

static int64_t clock_nanoseconds() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Status create_stream(Stream** to) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    State& s = state();
    Stream* stream = new Stream;
    stream->id = unsigned(s.streams.size());
    stream->gpu = gpu;
    s.streams.push_back(stream);
    gpu->streams.push_back(stream);
    s.alive.insert(stream);
    *to = stream;
    return OK;
}

Status check_stream(Stream* stream) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    if (!stream || stream == reinterpret_cast<Stream*>(1) || stream == reinterpret_cast<Stream*>(2)) {
        return misuse(NOT_SUPPORTED, "an operation on the default stream: every operation must name its stream");
    }
    if (!is_alive(stream)) return misuse(INVALID_HANDLE, "a stream that was destroyed or never created");
    if (stream->gpu != gpu) return misuse(INVALID_HANDLE, "a stream of another context than the current one");
    return OK;
}

Status destroy_stream(Stream* stream) {
    if (Status status = check_stream(stream)) return status;
    if (stream->capture && stream->capture->active) {
        stream->capture->invalid = "a capturing stream was destroyed";
    }
    run_until(*stream, stream->issued);
    state().alive.erase(stream);
    return OK;
}

Status issue(Stream* stream, Operation operation) {
    if (stream->capture) return capture_operation(stream, std::move(operation));
    State& s = state();
    operation.stream = stream;
    operation.number = ++stream->issued;
    stream->clock.set(stream->id, operation.number);
    stream->clock.join(s.host);
    operation.clock = stream->clock;
    if (Status status = pin_in_flight(operation)) return status;
    stream->pending.push_back(std::move(operation));
    progress();
    return stream->gpu->sticky;
}

void run_one(Stream& stream) {
    Operation operation = std::move(stream.pending.front());
    stream.pending.pop_front();
    if (operation.kind == Operation::WAIT) {
        run_until(*operation.point->stream, operation.point->number);
    } else if (operation.kind == Operation::RECORD) {
        operation.point->nanoseconds = clock_nanoseconds();
    } else if (stream.gpu->sticky == OK) {
        execute(operation);
    }
    stream.done = operation.number;
}

void run_until(Stream& stream, uint32_t number) {
    while (stream.done < number && !stream.pending.empty()) run_one(stream);
}

void progress() {
    State& s = state();
    if (s.options.progress == LAZY) return;
    if (s.options.progress == EAGER) {
        for (Stream* stream : s.streams) run_until(*stream, stream->issued);
        return;
    }
    uint64_t choice = next_random();
    Stream& stream = *s.streams[choice / 8 % s.streams.size()];
    if (choice % 8 < 2) run_until(stream, stream.issued);
    if (choice % 8 < 4 && !stream.pending.empty()) run_one(stream);
}

void host_reached(const Clock& clock) {
    state().host.join(clock);
    unpin_reached();
}

Status wait_for_stream(Stream* stream) {
    if (Status status = check_stream(stream)) return status;
    if (stream->capture) {
        stream->capture->invalid = "the host waited for a capturing stream";
        return misuse(CAPTURE_UNSUPPORTED, "the host waits for stream " + std::to_string(stream->id) + ", which is capturing");
    }
    if (Status status = check_uncaptured("a wait for a stream")) return status;
    state().counters.stream_waits++;
    progress();
    run_until(*stream, stream->issued);
    host_reached(stream->clock);
    return stream->gpu->sticky;
}

Status query_stream(Stream* stream) {
    if (Status status = check_stream(stream)) return status;
    if (stream->capture) {
        stream->capture->invalid = "the host asked after a capturing stream";
        return misuse(CAPTURE_UNSUPPORTED, "the host asks after stream " + std::to_string(stream->id) + ", which is capturing");
    }
    if (Status status = check_uncaptured("a query of a stream")) return status;
    state().counters.event_queries++;
    if (stream->done < stream->issued && next_random() % 2) run_one(*stream);
    if (stream->done < stream->issued) return NOT_READY;
    host_reached(stream->clock);
    return stream->gpu->sticky;
}

Status wait_for_device() {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    if (Status status = check_uncaptured("a wait for the device")) return status;
    state().counters.context_waits++;
    for (Stream* stream : gpu->streams) {
        run_until(*stream, stream->issued);
        host_reached(stream->clock);
    }
    return gpu->sticky;
}

Status create_event(bool timing, Event** to) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    Event* event = new Event;
    event->timing = timing;
    state().alive.insert(event);
    *to = event;
    return OK;
}

static Status check_event(const Event* event) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    return is_alive(event) ? OK : misuse(INVALID_HANDLE, "an event that was destroyed or never created");
}

Status destroy_event(Event* event) {
    if (!is_alive(event)) return misuse(INVALID_HANDLE, "an event that was destroyed or never created");
    state().alive.erase(event);
    event->point.reset();
    return OK;
}

Status record(Event* event, Stream* stream) {
    if (Status status = check_stream(stream)) return status;
    if (Status status = check_event(event)) return status;
    if (stream->capture) return capture_record(event, stream);
    Operation operation;
    operation.kind = Operation::RECORD;
    operation.name = "record";
    operation.point = std::make_shared<Point>();
    operation.point->stream = stream;
    operation.point->number = stream->issued + 1;
    event->point = operation.point;
    event->capture = nullptr;
    Status status = issue(stream, std::move(operation));
    event->point->clock = stream->clock;
    return status;
}

Status wait_on_stream(Stream* stream, Event* event) {
    if (Status status = check_stream(stream)) return status;
    if (Status status = check_event(event)) return status;
    if (stream->capture || event->capture) return capture_wait(stream, event);
    if (!event->point) return OK;
    Operation operation;
    operation.kind = Operation::WAIT;
    operation.name = "wait";
    operation.point = event->point;
    stream->clock.join(event->point->clock);
    return issue(stream, std::move(operation));
}

static Status check_waitable(const Event* event, const char* call) {
    if (Status status = check_event(event)) return status;
    if (event->capture) {
        if (event->capture->active) event->capture->invalid = "the host used an event that was recorded there";
        return misuse(CAPTURED_EVENT, std::string(call) + " of an event that was last recorded by a capture");
    }
    return check_uncaptured(call);
}

Status wait_for_event(Event* event) {
    if (Status status = check_waitable(event, "a wait for an event")) return status;
    state().counters.event_waits++;
    if (!event->point) return OK;
    progress();
    Point& point = *event->point;
    run_until(*point.stream, point.number);
    host_reached(point.clock);
    return point.stream->gpu->sticky;
}

Status query_event(Event* event) {
    if (Status status = check_waitable(event, "a query of an event")) return status;
    state().counters.event_queries++;
    if (!event->point) return OK;
    Point& point = *event->point;
    if (point.stream->done < point.number && next_random() % 2) run_one(*point.stream);
    if (point.stream->done < point.number) return NOT_READY;
    host_reached(point.clock);
    return point.stream->gpu->sticky;
}

Status elapsed(Event* first, Event* second, float* milliseconds) {
    for (Event* event : {first, second}) {
        if (Status status = check_waitable(event, "the time of an event")) return status;
        if (!event->timing || !event->point) return misuse(INVALID_HANDLE, "the time of an event that keeps none, or was never recorded");
        if (event->point->stream->done < event->point->number) return NOT_READY;
    }
    *milliseconds = float(second->point->nanoseconds - first->point->nanoseconds) / 1e6f;
    return OK;
}

}  // namespace driver
