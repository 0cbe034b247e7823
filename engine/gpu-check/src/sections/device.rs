//! What the machine has.

use std::{fs, process::Command};

use super::{Settings, Teller};
use crate::{open, report::Finding};

/// Tells of the card, its driver and libraries, and of the host.
///
/// # Errors
/// When there is no card, with what was looked for.
pub(super) fn find(settings: &Settings, teller: &Teller) -> anyhow::Result<()> {
    let fact = |name: &str, value: String| {
        eprintln!("   {name}: {value}");
        teller.tell(&Finding::fact(name, value));
    };
    for (name, file, key) in [("processor", "/proc/cpuinfo", "model name"), ("memory", "/proc/meminfo", "MemTotal")] {
        if let Some(value) = entry(file, key) {
            fact(name, value);
        }
    }
    fact("threads", std::thread::available_parallelism().map_or(1, usize::from).to_string());
    if let Ok(version) = fs::read_to_string("/proc/driver/nvidia/version") {
        fact("kernel driver", version.lines().next().unwrap_or_default().to_owned());
    }
    if let Some(text) = nvidia_smi() {
        fact("nvidia-smi", text);
    }
    let gpu = open::gpu(&settings.device)?;
    let info = gpu.info();
    fact("card", info.name.clone());
    fact("architecture", info.arch.clone());
    fact("multiprocessors", info.num_multiprocessors.to_string());
    fact("lanes of a warp", info.warp.to_string());
    fact("shared memory of a block", format!("{} bytes", info.max_shared_bytes));
    let memory = gpu.memory()?;
    fact("memory of the card", format!("{:.1} GB, {:.1} free", memory.total as f64 / 1e9, memory.free as f64 / 1e9));
    fact("compiler", gpu.driver().compiler().unwrap_or_else(|error| format!("none: {error}")));
    fact("library of products", if gpu.driver().has_products() { "there" } else { "none: own kernels multiply" }.to_owned());
    Ok(())
}

fn entry(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// What the vendor's tool says, where it is there.
fn nvidia_smi() -> Option<String> {
    let query = "--query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.mem,pcie.link.gen.current,pcie.link.width.current";
    let output = Command::new("nvidia-smi").args([query, "--format=csv,noheader"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().replace('\n', "; "))
}
