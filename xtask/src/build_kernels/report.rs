//! What `ptxas -v` says of each kernel.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

/// What one kernel needs on one kind of card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    pub file: String,
    pub kernel: String,
    pub architecture: String,
    pub registers: u32,
    /// Local memory of a thread.
    pub stack_bytes: u32,
    pub spilled_bytes: u32,
    /// Shared memory beside what a launch asks for.
    pub static_shared_bytes: u32,
}

impl Resources {
    pub fn name_with_architecture(&self) -> String {
        format!("{} ({})", self.kernel, self.architecture)
    }

    pub fn to_json(&self) -> Value {
        json!({
            "file": self.file, "kernel": self.kernel, "architecture": self.architecture, "registers": self.registers,
            "stack_bytes": self.stack_bytes, "spilled_bytes": self.spilled_bytes, "static_shared_bytes": self.static_shared_bytes,
        })
    }
}

/// # Errors
/// When the text is not what it was when this was written: then nothing is known of spills.
pub fn parse(file: &str, text: &str) -> anyhow::Result<Vec<Resources>> {
    let number = |line: &str, unit: &str| -> Option<u32> {
        line.split(unit).next()?.rsplit(|c: char| !c.is_ascii_digit()).find(|n| !n.is_empty())?.parse().ok()
    };
    let mut all: Vec<Resources> = Vec::new();
    let (mut named, mut framed, mut counted) = (0, 0, 0);
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let mut parts = rest.split('\'');
            let (kernel, architecture) = (parts.next(), parts.nth(1));
            all.push(Resources {
                file: file.into(),
                kernel: kernel.context("a kernel's name")?.into(),
                architecture: architecture.with_context(|| format!("no architecture in {line:?}"))?.into(),
                registers: 0,
                stack_bytes: 0,
                spilled_bytes: 0,
                static_shared_bytes: 0,
            });
            named += 1;
        } else if line.contains(" bytes stack frame") {
            let last = all.last_mut().context("a stack frame before any kernel")?;
            let [stack, stores, loads] = [" bytes stack frame", " bytes spill stores", " bytes spill loads"].map(|unit| number(line, unit));
            last.stack_bytes = stack.with_context(|| format!("{line:?}"))?;
            last.spilled_bytes = stores.zip(loads).map(|(s, l)| s + l).with_context(|| format!("{line:?}"))?;
            framed += 1;
        } else if line.contains(" registers") {
            let last = all.last_mut().context("registers before any kernel")?;
            last.registers = number(line, " registers").with_context(|| format!("{line:?}"))?;
            if line.contains(" bytes smem") {
                last.static_shared_bytes = number(line, " bytes smem").with_context(|| format!("{line:?}"))?;
            }
            counted += 1;
        }
    }
    ensure!(
        named > 0 && named == framed && named == counted,
        "of {named} kernels of {file}, {framed} report spills and {counted} registers"
    );
    Ok(all)
}

/// For each file, the kernel that needs most registers.
pub fn table(all: &[Resources]) -> String {
    let mut files: Vec<&str> = all.iter().map(|r| r.file.as_str()).collect();
    files.dedup();
    let mut text =
        format!("{:20} {:>7} {:>9} {:>8} {:>7} {:>7}  greediest\n", "file", "kernels", "registers", "shared B", "stack B", "spill B");
    for file in files {
        let own = || all.iter().filter(|r| r.file == file);
        let greatest = |f: fn(&Resources) -> u32| own().map(f).max().unwrap_or(0);
        let greediest = own().max_by_key(|r| r.registers).map(Resources::name_with_architecture).unwrap_or_default();
        let (registers, shared) = (greatest(|r| r.registers), greatest(|r| r.static_shared_bytes));
        let (stack, spill) = (greatest(|r| r.stack_bytes), greatest(|r| r.spilled_bytes));
        text += &format!("{file:20} {:>7} {registers:>9} {shared:>8} {stack:>7} {spill:>7}  {greediest}\n", own().count());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'embed_f16' for 'sm_80'
ptxas info    : Function properties for embed_f16
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 14 registers, used 0 barriers, 384 bytes cmem[0]
ptxas info    : Compiling entry function 'norm' for 'sm_90a'
ptxas info    : Function properties for norm
    32 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 256 bytes smem, 32 bytes cumulative stack size
";

    #[test]
    fn reads_what_ptxas_says() {
        let all = parse("norm", TEXT).expect("complete");
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].kernel.as_str(), all[0].registers, all[0].spilled_bytes), ("embed_f16", 14, 0));
        let norm = &all[1];
        assert_eq!((norm.architecture.as_str(), norm.registers, norm.stack_bytes), ("sm_90a", 255, 32));
        assert_eq!((norm.spilled_bytes, norm.static_shared_bytes), (20, 256));
        assert!(table(&all).contains("norm (sm_90a)"));
    }

    #[test]
    fn a_text_without_spills_is_refused() {
        assert!(parse("norm", "").is_err());
        let without: Vec<&str> = TEXT.lines().filter(|line| !line.contains("spill")).collect();
        assert!(parse("norm", &without.join("\n")).is_err());
    }
}
