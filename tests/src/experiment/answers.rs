//! How many tokens clients ask for.

/// Behind a bad link: it must outlast the run also where the engine runs ahead of the link.
pub(super) const LONG: usize = super::model::CONTEXT - 256;

/// A healthy client's: some end within a run, as in traffic.
pub(crate) const USUAL: usize = 1200;

/// The shortest first answer of healthy clients, which are staggered, as a fraction of the others.
const LEAST: f64 = 0.25;

/// The first answer of the `n`th of so many healthy clients, from 1: streams are of all ages at any time, as traffic is.
pub(crate) fn first(n: usize, healthy: usize) -> usize {
    (USUAL as f64 * (LEAST + (1.0 - LEAST) * n as f64 / healthy as f64)) as usize
}
