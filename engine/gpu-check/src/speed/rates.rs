//! What the card's memory, its link and its tensor cores do at best.

use std::time::Duration;

use anyhow::ensure;
use tokenflow_gpu::{Element, Gpu, GpuError, Product, Stream};

use crate::{report::Finding, sections::Teller, step::Rates};

/// Measures and tells all; where products by the vendor's library cannot be measured, an H200's rate on paper stands in.
///
/// # Errors
/// When the driver fails.
pub(super) fn measure(gpu: &Gpu, tiny: bool, teller: &Teller) -> anyhow::Result<Rates> {
    let bytes_per_second = memory(gpu, if tiny { 1 << 16 } else { 1 << 30 })?;
    teller.tell(&Finding::bounded("memory, read and written", bytes_per_second / 1e12, "TB/s", Rates::H200.bytes_per_second / 1e12));
    teller.measure("link", Duration::ZERO, || link(gpu, if tiny { 1 << 16 } else { 1 << 28 }));
    let mut flops_per_second = Rates::H200.flops_per_second;
    if gpu.driver().has_products() {
        const NAME: &str = "bf16 product by the vendor's library";
        match products(gpu, if tiny { 64 } else { 8192 }) {
            Ok(seen) => {
                flops_per_second = seen;
                teller.tell(&Finding::bounded(NAME, seen / 1e12, "TFLOP/s", Rates::H200.flops_per_second / 1e12));
            }
            Err(error) => teller.tell(&Finding::check(NAME, &Err(error), None, 0.0)),
        }
    } else {
        teller.tell(&Finding::skipped("bf16 product by the vendor's library", "it is not there"));
    }
    Ok(Rates { bytes_per_second, flops_per_second })
}

/// Seconds of one of what `issue` issues, on average over a few, after one that warms up.
fn timed(gpu: &Gpu, issue: impl Fn(&Stream) -> Result<(), GpuError>) -> anyhow::Result<f64> {
    const TIMES: usize = 10;
    let (stream, first, last) = (gpu.stream()?, gpu.timed_event()?, gpu.timed_event()?);
    issue(&stream)?;
    stream.record(&first)?;
    (0..TIMES).try_for_each(|_| issue(&stream))?;
    stream.record(&last)?;
    last.wait()?;
    stream.wait()?;
    let seconds = last.seconds_since(&first)? / TIMES as f64;
    ensure!(seconds > 0.0, "the device's clock stands still");
    Ok(seconds)
}

fn memory(gpu: &Gpu, bytes: usize) -> anyhow::Result<f64> {
    let (from, to) = (gpu.allocate(bytes)?, gpu.allocate(bytes)?);
    let clear = gpu.stream()?;
    // SAFETY: within what was allocated; the wait comes before anything else.
    unsafe { clear.fill(from.start(), 0, bytes)? };
    clear.wait()?;
    // SAFETY: both live until `timed` has waited.
    let seconds = timed(gpu, |stream| unsafe { stream.copy_on_device(to.start(), from.start(), bytes) })?;
    Ok(2.0 * bytes as f64 / seconds)
}

fn link(gpu: &Gpu, bytes: usize) -> anyhow::Result<Vec<Finding>> {
    let (device, host) = (gpu.allocate(bytes)?, gpu.allocate_pinned(bytes)?);
    // SAFETY: both live until `timed` has waited, and nobody looks at them.
    let there = timed(gpu, |stream| unsafe { stream.copy_to_device(device.start(), host.as_ptr(), bytes) })?;
    // SAFETY: as above.
    let back = timed(gpu, |stream| unsafe { stream.copy_to_host(host.as_ptr(), device.start(), bytes) })?;
    let rate = |seconds: f64| bytes as f64 / seconds / 1e9;
    Ok(vec![
        Finding::measurement("pinned memory to the card", rate(there), "GB/s"),
        Finding::measurement("card to pinned memory", rate(back), "GB/s"),
    ])
}

fn products(gpu: &Gpu, size: usize) -> anyhow::Result<f64> {
    let product = Product { rows: size, features: size, inner: size, element: Element::BF16, out: Element::BF16 };
    let memory = [gpu.allocate(2 * size * size)?, gpu.allocate(2 * size * size)?, gpu.allocate(2 * size * size)?];
    let clear = gpu.stream()?;
    for operand in &memory {
        // A small number in bf16, 0x3c3c: zeros would draw less power than work does.
        // SAFETY: within what was allocated; the wait comes before anything else.
        unsafe { clear.fill(operand.start(), 0x3c, operand.bytes())? };
    }
    clear.wait()?;
    let [x, weight, out] = memory.each_ref().map(|operand| operand.start());
    // SAFETY: all live until `timed` has waited.
    let seconds = timed(gpu, |stream| unsafe { stream.product(&product, x, weight, out) })?;
    Ok(2.0 * (size as f64).powi(3) / seconds)
}
