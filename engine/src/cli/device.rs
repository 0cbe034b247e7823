//! Flags about the device that the model runs on.

use std::{fmt, str::FromStr};

use clap::{ArgAction, Args, builder::FalseyValueParser};
use tokenflow_gpu::DeviceChoice;

/// Where the model runs. Ordinals count the cards that `CUDA_VISIBLE_DEVICES` or `HIP_VISIBLE_DEVICES` leave visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceArg {
    /// A GPU where one can be opened, else the CPU.
    #[default]
    Auto,
    Cpu,
    Gpu(DeviceChoice),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            gpu => gpu.parse().map(Self::Gpu).map_err(|_| format!("'{text}' is none of auto, cpu, cuda, cuda:N, rocm and rocm:N")),
        }
    }
}

impl fmt::Display for DeviceArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(choice) => choice.fmt(f),
        }
    }
}

/// The device, and how a GPU is used.
#[derive(Args, Debug, Clone)]
pub struct DeviceArgs {
    /// Where the model runs: auto (a GPU where one can be opened, else the CPU), cpu, cuda, cuda:N, rocm or rocm:N
    #[arg(long, default_value_t)]
    pub device: DeviceArg,
    /// Share of a GPU's memory that may be in use once the model is loaded, above 0 and at most 1; the KV cache gets what is left of it
    /// [default: 0.9]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub gpu_memory_utilization: Option<f64>,
    /// Launch every kernel of every step on its own: no graphs of a GPU's kernels are recorded
    #[arg(long, overrides_with = "_no_enforce_eager")]
    pub enforce_eager: bool,
    #[arg(long = "no-enforce-eager", hide = true, overrides_with = "enforce_eager")]
    _no_enforce_eager: bool,
    /// Prepare a GPU's next step only when the tokens of the last are known
    #[arg(long = "no-async-scheduling", action = ArgAction::SetFalse, overrides_with = "_async_scheduling")]
    pub async_scheduling: bool,
    #[arg(long = "async-scheduling", hide = true, overrides_with = "async_scheduling")]
    _async_scheduling: bool,
    /// Multiply on a GPU by kernels that do the same sums whatever else is in the batch, which is slower
    #[arg(long, env = "VLLM_BATCH_INVARIANT", value_parser = FalseyValueParser::new(), hide_env = true)]
    pub batch_invariant: bool,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("must be a number above 0 and at most 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, spelt_out};

    fn parsed(line: &str) -> Result<DeviceArgs, String> {
        let words = ["tokenflow-engine", "serve"].into_iter().chain(line.split_whitespace()).map(Into::into);
        match Cli::try_parse_from(spelt_out(words)).map_err(|e| e.to_string())?.command {
            Command::Serve(args) => Ok(args.engine.devices),
            Command::Generate(_) => Err("serve was asked for".into()),
        }
    }

    #[test]
    fn devices_are_named_with_and_without_a_number() {
        for (text, device) in [
            ("auto", DeviceArg::Auto),
            ("cpu", DeviceArg::Cpu),
            ("cuda", DeviceArg::Gpu(DeviceChoice::Cuda(None))),
            ("cuda:7", DeviceArg::Gpu(DeviceChoice::Cuda(Some(7)))),
            ("rocm", DeviceArg::Gpu(DeviceChoice::Rocm(None))),
            ("rocm:0", DeviceArg::Gpu(DeviceChoice::Rocm(Some(0)))),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
        }
        for bad in ["tpu", "", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "auto:1", "cuda:0:1"] {
            assert!(bad.parse::<DeviceArg>().is_err(), "{bad}");
        }
        assert!(parsed("--device tpu").unwrap_err().contains("'tpu' is none of auto, cpu, cuda, cuda:N, rocm and rocm:N"));
    }

    #[test]
    fn shares_of_memory_are_above_0_and_at_most_1() {
        assert_eq!(parsed("").unwrap().gpu_memory_utilization, None);
        assert_eq!(parsed("--gpu_memory_utilization 1").unwrap().gpu_memory_utilization, Some(1.0));
        for bad in ["0", "1.5", "-0.1", "nan", "much"] {
            let message = parsed(&format!("--gpu-memory-utilization={bad}")).unwrap_err();
            assert!(message.contains("--gpu-memory-utilization") && message.contains("above 0 and at most 1"), "{message}");
        }
    }

    #[test]
    fn the_last_of_a_flag_and_its_opposite_counts() {
        let is_eager = |line| parsed(line).unwrap().enforce_eager;
        assert!(!is_eager("") && is_eager("--enforce-eager") && !is_eager("--enforce-eager --no-enforce-eager"));
        assert!(is_eager("--no-enforce-eager --enforce-eager"));
        let is_async = |line| parsed(line).unwrap().async_scheduling;
        assert!(is_async("") && is_async("--async-scheduling") && !is_async("--no-async-scheduling"));
        assert!(!parsed("").unwrap().batch_invariant && parsed("--batch-invariant").unwrap().batch_invariant);
        assert!(is_async("--no-async-scheduling --async-scheduling") && !is_async("--async-scheduling --no-async-scheduling"));
    }
}
