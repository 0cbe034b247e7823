//! Links that depend on one another, and the connections over them, in virtual time.
//!
//! Nothing outside influences a network but writes and changes of its links, so it is brought up to date only when somebody looks.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::{
    connection::Connection,
    queue::{Queue, Segment},
    time::Nanos,
};
use crate::{netns::LinkShape, random::Random};

/// What a packet takes through the hosts' stacks, one way.
const HOST_DELAY: Nanos = 25_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// The first in a queue has left it, unless the queue has changed since.
    Departure { queue: u32, epoch: u32 },
    /// A segment comes to this place of its path.
    Arrival { segment: Segment, hop: u8 },
    /// A segment's acknowledgement is back.
    Acknowledged { connection: u32, number: u64 },
    /// The sender notices a loss.
    Lost { connection: u32, number: u64 },
    /// A reader has made room.
    Room { connection: u32 },
}

pub struct Network {
    now: Nanos,
    queues: Vec<Queue>,
    connections: Vec<Connection>,
    /// In order of time, then of their making.
    to_come: BinaryHeap<Reverse<(Nanos, u64, Happening)>>,
    made: u64,
    random: Random,
    /// When the client of each connection got how much, for who asked to note it.
    arrivals: VecDeque<(u32, Nanos, u64)>,
}

impl Network {
    pub fn new(shapes: &[LinkShape], seed: u64) -> Self {
        Self {
            now: 0,
            queues: shapes.iter().map(Queue::new).collect(),
            connections: Vec::new(),
            to_come: BinaryHeap::new(),
            made: 0,
            random: Random::new(seed),
            arrivals: VecDeque::new(),
        }
    }

    /// The empty path's round trip, and how long a packet would wait in its queues now.
    pub fn round_trip(&mut self, now: Nanos, path: &[usize]) -> (Nanos, Nanos) {
        self.advance(now);
        let delay: Nanos = path.iter().map(|&queue| self.queues[queue].delay).sum();
        let waiting = path.iter().map(|&queue| self.queues[queue].waiting_time(now)).sum();
        // The relay of a link delays both directions.
        (2 * (delay + HOST_DELAY), waiting)
    }

    pub fn open(&mut self, connection: Connection) -> u32 {
        self.connections.push(connection);
        self.connections.len() as u32 - 1
    }

    pub fn connection(&self, connection: u32) -> &Connection {
        &self.connections[connection as usize]
    }

    pub fn reshape(&mut self, now: Nanos, queue: usize, shape: &LinkShape) {
        self.advance(now);
        self.queues[queue].reshape(now, shape);
        self.expect_departure(queue);
    }

    pub fn write(&mut self, now: Nanos, connection: u32, bytes: u64) {
        self.advance(now);
        self.connections[connection as usize].write(bytes);
        self.send(connection);
    }

    /// What has come to clients since the last call: connection, when, how much of it in all.
    pub fn take_arrivals(&mut self) -> impl Iterator<Item = (u32, Nanos, u64)> {
        self.arrivals.drain(..)
    }

    /// Lets everything happen that happens until `now`.
    pub fn advance(&mut self, now: Nanos) {
        while let Some(Reverse((at, _, happening))) = self.to_come.peek().copied().filter(|Reverse((at, ..))| *at <= now) {
            self.to_come.pop();
            self.now = at;
            self.happen(happening);
        }
        self.now = now;
    }

    fn expect(&mut self, at: Nanos, happening: Happening) {
        self.to_come.push(Reverse((at, self.made, happening)));
        self.made += 1;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Departure { queue, epoch } => {
                let index = queue as usize;
                if self.queues[index].epoch != epoch {
                    return;
                }
                let Some(segment) = self.queues[index].depart(self.now) else { return };
                self.expect_departure(index);
                let hop = self.connections[segment.connection as usize].path.iter().position(|&q| q == index).expect("it is on its path");
                self.expect(self.now + self.queues[index].delay, Happening::Arrival { segment, hop: hop as u8 + 1 });
            }
            Happening::Arrival { segment, hop } => self.arrive(segment, hop),
            Happening::Acknowledged { connection, number } => {
                let sender = &mut self.connections[connection as usize];
                let before = sender.acked_bytes();
                sender.acknowledge(self.now, number);
                let acked = sender.acked_bytes();
                if acked > before {
                    self.arrivals.push_back((connection, self.now - sender.way_back, acked));
                }
                self.send(connection);
            }
            Happening::Lost { connection, number } => {
                if let Some(wire_bytes) = self.connections[connection as usize].send_again(self.now, number) {
                    self.arrive(Segment { connection, number, wire_bytes }, 0);
                }
            }
            Happening::Room { connection } => {
                self.connections[connection as usize].room_expected_now();
                self.send(connection);
            }
        }
    }

    fn send(&mut self, connection: u32) {
        while let Some((number, wire_bytes)) = self.connections[connection as usize].next_segment(self.now) {
            self.arrive(Segment { connection, number, wire_bytes }, 0);
        }
        if let Some(at) = self.connections[connection as usize].expect_room(self.now) {
            self.expect(at, Happening::Room { connection });
        }
    }

    fn arrive(&mut self, segment: Segment, hop: u8) {
        let sender = &self.connections[segment.connection as usize];
        let Some(&index) = sender.path.get(usize::from(hop)) else {
            let back = self.now + HOST_DELAY + sender.way_back;
            return self.expect(back, Happening::Acknowledged { connection: segment.connection, number: segment.number });
        };
        let queue = &mut self.queues[index];
        let is_lost = queue.loss > 0.0 && self.random.fraction() < queue.loss;
        if is_lost || !queue.enter(self.now, segment) {
            let notice = self.now + self.connections[segment.connection as usize].time_to_notice(segment.number);
            return self.expect(notice, Happening::Lost { connection: segment.connection, number: segment.number });
        }
        if queue.is_first() {
            self.expect_departure(index);
        }
    }

    fn expect_departure(&mut self, queue: usize) {
        if let Some(at) = self.queues[queue].next_departure() {
            let epoch = self.queues[queue].epoch;
            self.expect(at.max(self.now), Happening::Departure { queue: queue as u32, epoch });
        }
    }
}
