//! Threads that share one operation at a time, with a hand-over in well under a microsecond.
//!
//! Workers spin for a moment between operations, since a decode step issues a hundred of them back to back, and then
//! park, so that an idle engine uses no processor time.

use std::{
    cell::UnsafeCell,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
        },
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How long a worker spins for the next operation before it parks.
const SPIN: Duration = Duration::from_micros(100);
/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 64;

type Job = *const (dyn Fn(usize) + Sync);

/// A value on cache lines of its own.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    /// Number of the latest job; workers watch it.
    epoch: Padded<AtomicUsize>,
    /// Workers that have not finished the job.
    remaining: Padded<AtomicUsize>,
    /// Written by the caller before `epoch` changes, read by workers after.
    job: UnsafeCell<Option<Job>>,
    panicked: AtomicBool,
    stop: AtomicBool,
    /// Per thread: how many items of its share have been taken, see [`Pool::share`].
    taken: Vec<Padded<AtomicUsize>>,
    /// Per worker: parked, or about to be.
    sleeping: Vec<Padded<AtomicBool>>,
}

// SAFETY: `job` is written only while no worker runs and published by `epoch`; what it points to is `Sync`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
    /// One operation at a time, whoever calls.
    turn: Mutex<()>,
}

impl Pool {
    /// `threads` counts the calling thread; 0 takes all available cores.
    pub(super) fn new(threads: usize) -> std::io::Result<Self> {
        let threads = if threads == 0 { thread::available_parallelism().map_or(1, usize::from) } else { threads };
        let shared = Arc::new(Shared {
            epoch: Padded(AtomicUsize::new(0)),
            remaining: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            taken: (0..threads).map(|_| Padded(AtomicUsize::new(0))).collect(),
            sleeping: (1..threads).map(|_| Padded(AtomicBool::new(false))).collect(),
        });
        let mut pool = Self { shared, workers: Vec::new(), turn: Mutex::new(()) };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let handle = thread::Builder::new().name(format!("kernel-{index}")).spawn(move || shared.work(index))?;
            let thread = handle.thread().clone();
            pool.workers.push((handle, thread));
        }
        Ok(pool)
    }

    pub(super) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(thread)` once on every thread, the caller being thread 0, and returns when all are done.
    ///
    /// # Panics
    /// When `job` panicked on any thread.
    pub(super) fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        let _turn = self.turn.lock();
        self.run_in_turn(job);
    }

    fn run_in_turn(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return job(0);
        }
        let shared = &*self.shared;
        // SAFETY: no worker reads `job` before `epoch` changes, and this call outlasts every use of the reference.
        unsafe { *shared.job.get() = Some(std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job)) };
        shared.remaining.0.store(self.workers.len(), Relaxed);
        shared.epoch.0.fetch_add(1, SeqCst);
        for (sleeping, (_, thread)) in shared.sleeping.iter().zip(&self.workers) {
            if sleeping.0.load(SeqCst) && sleeping.0.swap(false, SeqCst) {
                thread.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut spins = 0u32;
        while shared.remaining.0.load(Acquire) != 0 {
            spins = spins.wrapping_add(1);
            // A worker may have lost its core to another process.
            if spins.is_multiple_of(4096) {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Relaxed), "a kernel thread panicked");
    }

    /// Cuts `0..len` into one contiguous range per thread and calls `job(thread, range)` for each that is not empty; on the caller
    /// alone when `parallel` is false.
    pub(super) fn split(&self, len: usize, parallel: bool, job: impl Fn(usize, Range<usize>) + Sync) {
        let threads = self.threads();
        if !parallel || threads == 1 || len <= 1 {
            if len > 0 {
                job(0, 0..len);
            }
            return;
        }
        self.run(&|thread| {
            let range = len * thread / threads..len * (thread + 1) / threads;
            if !range.is_empty() {
                job(thread, range);
            }
        });
    }

    /// Calls `job(thread, items)` once on every thread; `items` are `0..len`, each given out once: to a thread first its own contiguous
    /// share, and then what slower threads have left.
    pub(super) fn share(&self, len: usize, job: impl Fn(usize, Items<'_>) + Sync) {
        let _turn = self.turn.lock();
        let taken = &self.shared.taken[..];
        taken.iter().for_each(|taken| taken.0.store(0, Relaxed));
        self.run_in_turn(&|thread| job(thread, Items { taken, len, thread, of: 0 }));
    }
}

/// What a thread is given in [`Pool::share`].
pub(super) struct Items<'a> {
    taken: &'a [Padded<AtomicUsize>],
    len: usize,
    thread: usize,
    /// Counts the threads whose shares this one has worked on.
    of: usize,
}

impl Iterator for Items<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let threads = self.taken.len();
        while self.of < threads {
            let owner = (self.thread + self.of) % threads;
            let (start, end) = (self.len * owner / threads, self.len * (owner + 1) / threads);
            let item = start + self.taken[owner].0.fetch_add(1, Relaxed);
            if item < end {
                return Some(item);
            }
            self.of += 1;
        }
        None
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.epoch.0.fetch_add(1, SeqCst);
        for (handle, thread) in self.workers.drain(..) {
            thread.unpark();
            // A worker's panic has been reported by the job that caused it.
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            seen = self.next(index, seen);
            if self.stop.load(SeqCst) {
                return;
            }
            // SAFETY: written before `epoch` changed; not written again before `remaining` reaches zero.
            if let Some(job) = unsafe { *self.job.get() } {
                // SAFETY: the caller waits inside `run` for `remaining`, so the closure is alive.
                let job = unsafe { &*job };
                if catch_unwind(AssertUnwindSafe(|| job(index))).is_err() {
                    self.panicked.store(true, Relaxed);
                }
            }
            self.remaining.0.fetch_sub(1, Release);
        }
    }

    /// Waits until the epoch differs from `seen` and returns it.
    fn next(&self, index: usize, seen: usize) -> usize {
        let mut started = None;
        let mut spins = 0u32;
        loop {
            let epoch = self.epoch.0.load(Acquire);
            if epoch != seen {
                return epoch;
            }
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(SPINS_PER_LOOK) && started.get_or_insert_with(Instant::now).elapsed() > SPIN {
                break;
            }
            std::hint::spin_loop();
        }
        let sleeping = &self.sleeping[index - 1].0;
        loop {
            // The caller changes `epoch` and then looks at `sleeping`; here it is the other way round, so one of the two sees the other.
            sleeping.store(true, SeqCst);
            let epoch = self.epoch.0.load(SeqCst);
            if epoch != seen {
                sleeping.store(false, SeqCst);
                return epoch;
            }
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_runs_every_job_once() {
        let pool = Pool::new(4).expect("threads");
        for round in 0..200 {
            let counts: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
            pool.run(&|thread| {
                counts[thread].fetch_add(1, SeqCst);
            });
            assert!(counts.iter().all(|c| c.load(SeqCst) == 1), "round {round}");
        }
    }

    #[test]
    fn parked_workers_wake() {
        let pool = Pool::new(3).expect("threads");
        while !pool.shared.sleeping.iter().all(|s| s.0.load(SeqCst)) {
            thread::yield_now();
        }
        let count = AtomicUsize::new(0);
        pool.run(&|_| {
            count.fetch_add(1, SeqCst);
        });
        assert_eq!(count.load(SeqCst), 3);
    }

    #[test]
    fn ranges_cover_everything_once() {
        let pool = Pool::new(3).expect("threads");
        for len in [0, 1, 2, 3, 4, 100] {
            let hits: Vec<AtomicUsize> = (0..len).map(|_| AtomicUsize::new(0)).collect();
            pool.split(len, true, |_, range| range.for_each(|i| hits[i].store(hits[i].load(SeqCst) + 1, SeqCst)));
            assert!(hits.iter().all(|h| h.load(SeqCst) == 1), "{len}");
        }
    }

    #[test]
    fn items_are_given_out_once() {
        for threads in [1, 3] {
            let pool = Pool::new(threads).expect("threads");
            for len in [0, 1, 2, 100] {
                let hits: Vec<AtomicUsize> = (0..len).map(|_| AtomicUsize::new(0)).collect();
                pool.share(len, |thread, items| {
                    // A thread that takes nothing leaves its share to the others.
                    if thread + 1 == threads {
                        items.for_each(|i| hits[i].store(hits[i].load(SeqCst) + 1, SeqCst));
                    }
                });
                assert!(hits.iter().all(|h| h.load(SeqCst) == 1), "{len} items, {threads} threads");
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = Pool::new(2).expect("threads");
        for culprit in [0, 1] {
            let panicked = catch_unwind(AssertUnwindSafe(|| pool.run(&|thread| assert_ne!(thread, culprit))));
            assert!(panicked.is_err());
        }
        pool.run(&|_| {});
    }
}
