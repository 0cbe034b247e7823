//! The parts of a run. Each is a process of its own, since a card that meets one bad access refuses everything else from that process; it
//! tells its findings as lines of JSON, has a time limit, and its end, whatever it is, does not end the others.

mod child;
mod device;
mod parent;

use clap::ValueEnum;

pub use child::{Settings, Teller, run_section};
pub use parent::{Run, default_folder, run};

/// What can be asked for with `--only`, in the order of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SectionName {
    /// What was found: the card, its driver, its libraries
    Device,
    /// Each kernel against the CPU
    Kernels,
    /// Whole models against the CPU
    Parity,
    /// The card's rates, every operation of a step, and whole steps of an 8B model
    Speed,
    /// The server under load, over HTTP
    Serve,
    /// A tiny model against transformers, where Python has it
    Reference,
}

impl SectionName {
    pub const ALL: [Self; 6] = [Self::Device, Self::Kernels, Self::Parity, Self::Speed, Self::Serve, Self::Reference];

    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Kernels => "kernels",
            Self::Parity => "parity",
            Self::Speed => "speed",
            Self::Serve => "serve",
            Self::Reference => "reference",
        }
    }

    /// Share of the run's time. What one leaves of its own is the next one's.
    fn share(self) -> f64 {
        match self {
            Self::Device => 0.05,
            Self::Kernels => 0.20,
            Self::Parity => 0.17,
            Self::Speed => 0.28,
            Self::Serve => 0.22,
            Self::Reference => 0.08,
        }
    }
}
