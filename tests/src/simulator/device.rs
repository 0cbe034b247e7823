//! One device in virtual time: the engine's scheduler, steps that take as long as the calibration says, clients behind simulated links.
//!
//! What a run shows comes out as the same [`Record`] that the real experiments write, so that the same measures are taken of it.

use std::{cell::RefCell, cmp::Reverse, collections::BinaryHeap};

use tokenflow_engine::{
    sampling::{SampledToken, SamplingParams},
    scheduler::{Network as LinkSignals, NewSequence, Scheduler, SchedulerConfig, SequenceId, StepOutput, StepPlan, StreamSignal},
};
use tokenflow_score::aggregate;

use super::{
    Congestion, Options,
    congestion::CongestionControl,
    connection::{Connection, Reader},
    context::ContextCost,
    hints::HintSource,
    network::Network,
    time::{MILLISECOND, Nanos, duration, from_seconds, nanos, seconds},
};
use crate::{
    experiment::{Action, Calibration, Chunk, Load, Record, Request, RoundTrip, Sample, Scenario, Seat, answers},
    netns::LinkShape,
    random::Random,
};

/// Between two looks of whoever records the run.
const SAMPLE_INTERVAL: Nanos = 50 * MILLISECOND;
/// When the engine plans again where nothing says when.
const RETRY_INTERVAL: Nanos = 10 * MILLISECOND;
/// Over what time clients of continuous load come.
const START_OVER: Nanos = 20 * MILLISECOND;
/// From a healthy client's last token until it asks again.
const ANSWERED_AFTER: Nanos = 2 * MILLISECOND;
/// Receive buffer of a client that reads slowly.
const SLOW_READER_BUFFER: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    StepDone,
    /// The engine looks again, unless it has been asked to look at another time since.
    Wake {
        number: u64,
    },
    Timeline {
        index: usize,
    },
    /// A client connects and asks.
    Ask {
        seat: usize,
    },
    /// The request reaches the engine.
    Submit {
        stream: usize,
    },
    /// The hint server looks at its connections; what it saw reaches the engine.
    Look,
    Publish,
    Sample,
}

/// A client's place: where its links are.
struct Place {
    network: usize,
    path: Vec<usize>,
}

struct Stream {
    seat: usize,
    request: usize,
    network: usize,
    connection: u32,
    max_tokens: usize,
    arrived_tokens: u64,
    hints: HintSource,
    /// Whether output may still be on its way.
    open: bool,
    finished: bool,
}

struct Device<'a> {
    scenario: &'a Scenario,
    calibration: &'a Calibration,
    context_cost: ContextCost,
    options: &'a Options,
    payload: u64,
    now: Nanos,
    to_come: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    made: u64,
    random: Random,
    scheduler: Scheduler,
    in_flight: Option<StepPlan>,
    wake_number: u64,
    networks: RefCell<Vec<Network>>,
    places: Vec<Place>,
    /// Streams of each connection of each network.
    streams_of: Vec<Vec<usize>>,
    streams: Vec<Stream>,
    health_factor: f64,
    hints_live: bool,
    record: Record,
}

/// Runs a scenario on one device and returns what was to be seen of it.
pub fn run(scenario: &Scenario, calibration: &Calibration, options: &Options) -> Record {
    let mut device = Device::new(scenario, calibration, options);
    let end = nanos(options.warm_up + scenario.window);
    while let Some(Reverse((at, _, event))) = device.to_come.pop().filter(|Reverse((at, ..))| *at <= end) {
        device.now = at;
        device.happen(event);
    }
    device.now = end;
    device.note_arrivals();
    device.record
}

impl<'a> Device<'a> {
    fn new(scenario: &'a Scenario, calibration: &'a Calibration, options: &'a Options) -> Self {
        let (places, networks, record) = lay_out(scenario, options.seed);
        let seats = record.seats.len();
        let scheduler = Scheduler::new(SchedulerConfig {
            max_num_seqs: seats.max(256),
            // Room for everybody: memory is not what is looked at.
            num_blocks: 1 << 20,
            max_model_len: 1 << 24,
            pacing: options.pacing(),
            pacing_law: options.law,
            enable_prefix_caching: false,
            ..SchedulerConfig::default()
        });
        let mut device = Self {
            scenario,
            calibration,
            context_cost: ContextCost::new(options.context_seconds, calibration, scenario.window, options.prompt_tokens),
            options,
            payload: calibration.payload_bytes_per_token.round().max(1.0) as u64,
            now: 0,
            to_come: BinaryHeap::new(),
            made: 0,
            random: Random::new(options.seed ^ 0x5eed),
            scheduler,
            in_flight: None,
            wake_number: 0,
            streams_of: networks.iter().map(|_| Vec::new()).collect(),
            networks: RefCell::new(networks),
            places,
            streams: Vec::new(),
            health_factor: 1.0,
            hints_live: true,
            record,
        };
        device.expect_beginning();
        device
    }

    fn expect_beginning(&mut self) {
        for seat in 0..self.record.seats.len() {
            let over = match self.scenario.groups[self.record.seats[seat].group].load {
                Load::Arrivals { every, .. } => nanos(every),
                _ => START_OVER,
            };
            let at = self.random.below(over.max(1));
            self.expect(at, Event::Ask { seat });
        }
        let begin = nanos(self.options.warm_up);
        for (index, event) in self.scenario.events.iter().enumerate() {
            self.expect(begin + nanos(event.at), Event::Timeline { index });
        }
        let phase = self.random.below(nanos(self.options.hint_interval).max(1));
        self.expect(phase, Event::Look);
        self.expect(begin, Event::Sample);
    }

    fn expect(&mut self, at: Nanos, event: Event) {
        self.to_come.push(Reverse((at, self.made, event)));
        self.made += 1;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::StepDone => self.finish_step(),
            Event::Wake { number } if number == self.wake_number => self.plan(),
            Event::Wake { .. } => (),
            Event::Timeline { index } => self.act(index),
            Event::Ask { seat } => self.ask(seat),
            Event::Submit { stream } => self.submit(stream),
            Event::Look => self.look(),
            Event::Publish => self.publish(),
            Event::Sample => self.sample(),
        }
    }

    fn act(&mut self, index: usize) {
        let reshape = |place: &Place, queue: usize, link: &LinkShape| {
            self.networks.borrow_mut()[place.network].reshape(self.now, queue, link);
        };
        match &self.scenario.events[index].action {
            Action::Shape { group, link } => {
                let mut done = None;
                for (place, seat) in self.places.iter().zip(&self.record.seats).filter(|(_, seat)| seat.group == *group) {
                    // Streams of one link share its queue.
                    if done != Some(seat.link) {
                        reshape(place, *place.path.last().expect("every place has a link"), link);
                    }
                    done = Some(seat.link);
                }
            }
            Action::ShapeShared { link } => self.places.first().into_iter().for_each(|place| reshape(place, 0, link)),
            // The engine then looks at its sockets itself, with the same score: only the hint's age changes.
            Action::KillHints => self.hints_live = false,
            Action::StartHints => self.hints_live = true,
        }
    }

    fn ask(&mut self, seat: usize) {
        let group = self.record.seats[seat].group;
        let (reader, max_tokens) = match self.scenario.groups[group].load {
            Load::Continuous => (None, self.answer(seat)),
            Load::SlowReader { bytes_per_s } => {
                (Some(Reader { bytes_per_s: bytes_per_s as f64, buffer_bytes: SLOW_READER_BUFFER }), self.answer(seat))
            }
            Load::Arrivals { every, max_tokens } => {
                self.expect(self.now + nanos(every), Event::Ask { seat });
                (None, max_tokens)
            }
        };
        let place = &self.places[seat];
        let network = &mut self.networks.borrow_mut()[place.network];
        let (round_trip, waiting) = network.round_trip(self.now, &place.path);
        let congestion = match self.options.congestion {
            Congestion::Cubic => CongestionControl::cubic(),
            Congestion::Bbr => CongestionControl::bbr(),
        };
        // The handshake's answer waits where everything waits; then the request goes up, which nothing hinders.
        let handshake = round_trip + waiting;
        let connection = network.open(Connection::new(place.path.clone(), round_trip / 2, congestion, reader, handshake));
        let asked = self.since_window(self.now);
        self.record.seats[seat].requests.push(Request { asked, chunks: Vec::new() });
        let stream = self.streams.len();
        self.streams_of[place.network].push(stream);
        self.streams.push(Stream {
            seat,
            request: self.record.seats[seat].requests.len() - 1,
            network: place.network,
            connection,
            max_tokens,
            arrived_tokens: 0,
            hints: HintSource::default(),
            open: true,
            finished: false,
        });
        self.to_come.push(Reverse((self.now + handshake + round_trip / 2, self.made, Event::Submit { stream })));
        self.made += 1;
    }

    /// Tokens that a client of continuous load asks for, as in the experiments: healthy ones end and ask anew.
    fn answer(&self, seat: usize) -> usize {
        let is_healthy = |seat: &Seat| self.scenario.groups[seat.group].healthy;
        let seats = &self.record.seats;
        if !is_healthy(&seats[seat]) {
            return usize::MAX / 2;
        }
        if !seats[seat].requests.is_empty() {
            return answers::USUAL;
        }
        let healthy = seats.iter().filter(|seat| is_healthy(seat)).count();
        answers::first(seats[..=seat].iter().filter(|seat| is_healthy(seat)).count(), healthy)
    }

    fn submit(&mut self, stream: usize) {
        let sequence = NewSequence {
            id: SequenceId(stream as u64),
            prompt: vec![1; self.options.prompt_tokens.max(1)],
            max_tokens: self.streams[stream].max_tokens,
            stop_token_ids: Vec::new(),
            sampling: SamplingParams::greedy(),
            streamed: true,
            arrival: duration(self.now),
            priority: 0,
            cache_salt: None,
            group: None,
            tenant: None,
            connection: Some(stream as u64),
            deadline: None,
            start_by: None,
        };
        self.scheduler.add(sequence).expect("there is room for everybody");
        self.plan();
    }

    fn plan(&mut self) {
        if self.in_flight.is_some() {
            return;
        }
        self.wake_number += 1;
        let view = View {
            networks: &self.networks,
            streams: &self.streams,
            payload: self.payload,
            now: self.now,
            factor: self.health_factor,
            rate_gain: self.options.rate_gain,
        };
        let Some(plan) = self.scheduler.plan(duration(self.now), &view) else {
            if !self.scheduler.is_empty() {
                let wakeup = self.scheduler.next_wakeup(duration(self.now)).map_or(self.now + RETRY_INTERVAL, nanos);
                self.expect(wakeup.max(self.now + 1), Event::Wake { number: self.wake_number });
            }
            return;
        };
        let noise = 1.0 + self.options.step_noise * (2.0 * self.random.fraction() - 1.0);
        let calibrated = self.calibration.step_seconds(plan.num_tokens() as f64);
        let context = plan.sequences.iter().map(|s| s.start).sum();
        // However short contexts are, passing the weights remains.
        let seconds = (calibrated + self.context_cost.seconds(plan.sequences.len(), context)).max(calibrated / 2.0);
        let step = from_seconds(seconds * noise);
        self.in_flight = Some(plan);
        self.expect(self.now + step.max(1), Event::StepDone);
    }

    fn finish_step(&mut self) {
        let plan = self.in_flight.take().expect("a step was in flight");
        let token = || SampledToken { token: 1, logprob: None, top: Vec::new() };
        let sampled = plan.sequences.iter().filter(|s| s.sample.is_some()).map(|s| (s.id, token())).collect();
        let output = StepOutput { step: plan.step, sampled, ..StepOutput::default() };
        let networks = self.networks.get_mut();
        let mut ended = Vec::new();
        for update in self.scheduler.apply(&plan, output, duration(self.now)) {
            let stream = &mut self.streams[update.id.0 as usize];
            networks[stream.network].write(self.now, stream.connection, self.payload);
            stream.finished = update.finish.is_some();
            if stream.finished && matches!(self.scenario.groups[self.record.seats[stream.seat].group].load, Load::Continuous) {
                ended.push(stream.seat);
            }
        }
        // The next request follows when the last token has come; a free link's client has it at once.
        for seat in ended {
            self.expect(self.now + ANSWERED_AFTER, Event::Ask { seat });
        }
        self.plan();
    }

    fn look(&mut self) {
        let networks = self.networks.get_mut();
        for stream in self.streams.iter_mut().filter(|stream| stream.open) {
            let network = &mut networks[stream.network];
            network.advance(self.now);
            let connection = network.connection(stream.connection);
            stream.hints.look(self.now, &connection.measurement(self.now));
            stream.open = !stream.finished || connection.undelivered_bytes() > 0;
        }
        self.expect(self.now + nanos(self.options.hint_interval), Event::Look);
        let delay = if self.hints_live { nanos(self.options.hint_delay) } else { 0 };
        self.expect(self.now + delay, Event::Publish);
    }

    fn publish(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.hints.publish());
        self.health_factor = aggregate(self.streams.iter().filter(|s| s.open).map(|stream| stream.hints.published.weighted()));
    }

    fn sample(&mut self) {
        self.note_arrivals();
        let at = self.since_window(self.now);
        let seats = self.record.seats.len();
        let mut sample = Sample { at, undelivered_bytes: vec![None; seats], health: vec![None; seats], held_bytes: None };
        let networks = self.networks.get_mut();
        for stream in self.streams.iter().filter(|stream| stream.open) {
            let undelivered = networks[stream.network].connection(stream.connection).undelivered_bytes();
            *sample.undelivered_bytes[stream.seat].get_or_insert(0) += undelivered;
            *sample.held_bytes.get_or_insert(0) += undelivered;
            sample.health[stream.seat] = Some(stream.hints.published.health);
        }
        self.record.samples.push(sample);
        let mut probed = None;
        for (place, seat) in self.places.iter().zip(&self.record.seats) {
            // One probe for each group, over its first link.
            if probed != Some(seat.group) {
                probed = Some(seat.group);
                let (round_trip, waiting) = networks[place.network].round_trip(self.now, &place.path);
                self.record.round_trips.push(RoundTrip { group: seat.group, at, ms: seconds(round_trip + waiting) * 1e3 });
            }
        }
        self.expect(self.now + SAMPLE_INTERVAL, Event::Sample);
    }

    /// Notes what has come to clients until now.
    fn note_arrivals(&mut self) {
        let begin = seconds(nanos(self.options.warm_up));
        for (network, streams_of) in self.networks.get_mut().iter_mut().zip(&self.streams_of) {
            network.advance(self.now);
            for (connection, at, bytes) in network.take_arrivals() {
                let stream = &mut self.streams[streams_of[connection as usize]];
                let tokens = bytes / self.payload;
                let new = (tokens - stream.arrived_tokens) as u32;
                stream.arrived_tokens = tokens;
                if new > 0 {
                    let bytes = new * self.payload as u32;
                    let chunk = Chunk { at: seconds(at) - begin, tokens: new, bytes, health: stream.hints.published.health as f32 };
                    self.record.seats[stream.seat].requests[stream.request].chunks.push(chunk);
                }
            }
        }
    }

    fn since_window(&self, at: Nanos) -> f64 {
        seconds(at) - self.options.warm_up.as_secs_f64()
    }
}

/// Seats with their places, and the networks: one for each link, or one for all where a bottleneck is shared.
fn lay_out(scenario: &Scenario, seed: u64) -> (Vec<Place>, Vec<Network>, Record) {
    let mut record = Record::default();
    let mut places = Vec::new();
    let mut networks = Vec::new();
    let mut shapes: Vec<LinkShape> = scenario.shared.iter().cloned().collect();
    for (group, spec) in scenario.groups.iter().enumerate() {
        for link in 0..spec.links {
            let place = if scenario.shared.is_some() {
                shapes.push(spec.link.clone());
                (0, vec![0, shapes.len() - 1])
            } else {
                networks.push(Network::new(std::slice::from_ref(&spec.link), seed.wrapping_add(networks.len() as u64)));
                (networks.len() - 1, vec![0])
            };
            let seats = if matches!(spec.load, Load::Arrivals { .. }) { 1 } else { spec.streams_per_link };
            for _ in 0..seats {
                record.seats.push(Seat { group, link, requests: Vec::new() });
                places.push(Place { network: place.0, path: place.1.clone() });
            }
        }
    }
    if scenario.shared.is_some() {
        networks.push(Network::new(&shapes, seed));
    }
    (places, networks, record)
}

/// What the scheduler asks while it plans.
struct View<'a> {
    networks: &'a RefCell<Vec<Network>>,
    streams: &'a [Stream],
    payload: u64,
    now: Nanos,
    factor: f64,
    rate_gain: f64,
}

impl LinkSignals for View<'_> {
    fn health_factor(&self) -> f64 {
        self.factor
    }

    fn stream(&self, id: SequenceId) -> Option<StreamSignal> {
        let stream = self.streams.get(id.0 as usize)?;
        let network = &mut self.networks.borrow_mut()[stream.network];
        network.advance(self.now);
        let hint = stream.hints.published;
        Some(StreamSignal {
            health: hint.health,
            undelivered_bytes: network.connection(stream.connection).undelivered_bytes(),
            delivery_rate_bytes_per_s: hint.delivery_rate.map(|rate| rate * self.rate_gain),
            min_rtt_us: (hint.min_rtt_us > 0).then_some(hint.min_rtt_us),
            chunk_bytes: self.payload as u32,
        })
    }
}
