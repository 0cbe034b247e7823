//! One section in a process of its own.

use std::{
    cell::Cell,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::anyhow;

use super::{SectionName, device};
use crate::{
    card::{Card, Deviation},
    kernels, open, parity, reference,
    report::Finding,
    serve, speed,
};

/// What a section is told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub device: String,
    /// Until it is ended.
    pub time: Duration,
    /// A folder for large models, which sections share.
    pub scratch: PathBuf,
    /// Sizes for a device that is emulated.
    pub tiny: bool,
    pub check: Option<String>,
    /// A folder of kernels to check instead of those inside.
    pub sources: Option<PathBuf>,
}

/// Where findings go: to the process that runs the sections, line by line.
pub struct Teller {
    began: Instant,
    time: Duration,
    check: Option<String>,
    /// Of a check that compares by itself.
    deviation: Cell<Option<Deviation>>,
}

impl Teller {
    pub fn new(settings: &Settings) -> Self {
        Self { began: Instant::now(), time: settings.time, check: settings.check.clone(), deviation: Cell::default() }
    }

    pub fn tell(&self, finding: &Finding) {
        if let Finding::Check { name, detail: Some(detail), .. } = finding {
            eprintln!("   {name}: {detail}");
        }
        let mut line = serde_json::to_string(finding).expect("findings are plain data");
        line.push('\n');
        // Whoever no longer listens has ended us.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
    }

    /// Time that is left.
    pub fn left(&self) -> Duration {
        self.time.saturating_sub(self.began.elapsed())
    }

    /// How far the check that is running found something off.
    pub fn deviation(&self, error: f32, tolerance: f32) {
        self.deviation.set(Some(Deviation { error, tolerance }));
    }

    /// Runs `work` as a check, unless it is not among those asked for. A panic is a failure too.
    pub fn check(&self, name: &str, card: Option<&Card>, work: impl FnOnce() -> anyhow::Result<()>) {
        if self.check.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            return;
        }
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(anyhow!("panicked: {}", text.unwrap_or("without a message")))
        });
        let worst = card.and_then(Card::take_worst).or(self.deviation.take());
        self.tell(&Finding::check(name, &result, worst, began.elapsed().as_secs_f64()));
    }

    /// Measures something that takes about so long; says so where that is too long, or where it fails.
    pub fn measure(&self, name: &str, about: Duration, work: impl FnOnce() -> anyhow::Result<Vec<Finding>>) {
        let left = self.left();
        if left < about {
            return self
                .tell(&Finding::skipped(name, format!("{:.0} s were left, and it takes {:.0}", left.as_secs_f64(), about.as_secs_f64())));
        }
        let began = Instant::now();
        match catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(anyhow!("panicked"))) {
            Ok(findings) => findings.iter().for_each(|finding| self.tell(finding)),
            Err(error) => self.tell(&Finding::check(name, &Err(error), None, began.elapsed().as_secs_f64())),
        }
    }
}

/// Runs the section and tells what it finds; false where it could not do its work.
pub fn run_section(section: SectionName, settings: &Settings) -> bool {
    let teller = Teller::new(settings);
    let result = find(section, settings, &teller);
    if result.is_err() {
        teller.tell(&Finding::check(section.name(), &result, None, teller.began.elapsed().as_secs_f64()));
    }
    result.is_ok()
}

fn find(section: SectionName, settings: &Settings, teller: &Teller) -> anyhow::Result<()> {
    match section {
        SectionName::Device => device::find(settings, teller),
        SectionName::Kernels => {
            let card = open::card(&settings.device, settings.sources.as_deref())?;
            kernels::all().for_each(|check| teller.check(check.name, Some(&card), || (check.run)(&card)));
            Ok(())
        }
        SectionName::Parity => parity::run(settings, teller),
        SectionName::Speed => speed::run(settings, teller),
        SectionName::Serve => serve::run(settings, teller),
        SectionName::Reference => reference::run(settings, teller),
    }
}
