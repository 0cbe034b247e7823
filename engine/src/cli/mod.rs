//! The command line: vLLM's flags under vLLM's names, and ours. Parses only; [`crate::config`] gives meaning.

mod api;
mod device;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

pub use api::{ApiArgs, JsonList};
pub use device::{DeviceArg, DeviceArgs};

use crate::scheduler::{Pacing, PacingLaw};

mod scheduling;
mod vllm;

pub use scheduling::{PolicyArg, SchedulingArgs};
pub use vllm::{VllmFlags, spelt_out};

/// Larger blocks share nothing and waste half of themselves.
const MAX_BLOCK_SIZE: usize = 4096;

#[derive(Parser, Debug)]
#[command(name = "tokenflow-engine", version, about = "Network-aware LLM serving engine with an OpenAI-compatible API")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve a model over HTTP
    Serve(Box<ServeArgs>),
    /// Answer every line of a JSONL file, without a server; a run that was cut short goes on where it stood
    Generate(Box<GenerateArgs>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DTypeArg {
    /// The checkpoint's; on a CPU float32 where that is float32, else bfloat16
    #[default]
    Auto,
    Bfloat16,
    #[value(alias = "half")]
    Float16,
    #[value(alias = "float")]
    Float32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KvCacheDTypeArg {
    /// As --dtype
    #[default]
    Auto,
    Bfloat16,
    Float16,
    Float32,
    /// e4m3 with scale 1: half the memory of bfloat16
    #[value(alias = "fp8_e4m3")]
    Fp8,
}

/// Whether the model generates or embeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RunnerArg {
    /// pooling where the model's folder has a modules.json that pools, else generate
    #[default]
    Auto,
    /// Text is continued
    Generate,
    /// Text is embedded: /v1/embeddings
    Pooling,
}

/// What the health of links does to the step budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PacingArg {
    /// Health is reported, never used
    Off,
    /// The aggregate health scales every step's budget
    Global,
    /// Each stream runs as its own link delivers
    #[default]
    PerConnection,
}

impl From<PacingArg> for Pacing {
    fn from(arg: PacingArg) -> Self {
        match arg {
            PacingArg::Off => Self::Off,
            PacingArg::Global => Self::Global,
            PacingArg::PerConnection => Self::PerConnection,
        }
    }
}

/// What model to load and how to run it: the same for every subcommand.
#[derive(Args, Debug, Clone)]
pub struct EngineArgs {
    /// Folder of a Hugging Face model, GGUF file, or name on the Hugging Face hub such as org/model, org/model:Q4_K_M or
    /// org/model/file.gguf; without one, the demo model inside the binary is served
    #[arg(value_name = "MODEL")]
    pub model_positional: Option<PathBuf>,
    /// The same as the positional MODEL
    #[arg(long, value_name = "MODEL", conflicts_with = "model_positional")]
    pub model: Option<PathBuf>,
    /// Branch, tag or commit of a model on the hub [default: main]
    #[arg(long)]
    pub revision: Option<String>,
    /// Cache for models from the hub [default: HF_HUB_CACHE, or hub in HF_HOME]
    #[arg(long, value_name = "DIR")]
    pub download_dir: Option<PathBuf>,
    /// Names that requests may use; the first is reported [default: MODEL as given]
    #[arg(long, num_args = 1.., value_name = "NAME")]
    pub served_model_name: Vec<String>,
    /// Type of unencoded weights, products and the KV cache
    #[arg(long, value_enum, default_value_t)]
    pub dtype: DTypeArg,
    /// Type of the KV cache
    #[arg(long, value_enum, default_value_t)]
    pub kv_cache_dtype: KvCacheDTypeArg,
    /// What the model is used for
    #[arg(long, value_enum, default_value_t)]
    pub runner: RunnerArg,
    #[command(flatten)]
    pub devices: DeviceArgs,
    /// Context length, such as 4096 or 4k [default: the model's]
    #[arg(long, value_parser = human_count)]
    pub max_model_len: Option<usize>,
    /// Most sequences in one step
    #[arg(long, default_value_t = 256, value_parser = positive)]
    pub max_num_seqs: usize,
    /// Most tokens of all requests in one forward pass
    #[arg(long, default_value_t = 2048, value_parser = positive)]
    pub max_num_batched_tokens: usize,
    /// Tokens in a KV block
    #[arg(long, default_value_t = 16, value_parser = block_size)]
    pub block_size: usize,
    /// Number of KV blocks, instead of deriving it from memory
    #[arg(long, value_parser = positive)]
    pub num_gpu_blocks_override: Option<usize>,
    /// Bytes for the KV cache, such as 512m or 4g [default: on a GPU what --gpu-memory-utilization leaves, on a CPU at most 4g and at most
    /// half of the free memory]
    #[arg(long, value_parser = human_count)]
    pub kv_cache_memory_bytes: Option<usize>,
    /// GiB of host memory for KV blocks that have to give way: of preempted requests and of streams whose readers have stalled. 0 for none:
    /// they are computed again
    #[arg(long, value_name = "GIB", default_value_t = 0.0, value_parser = gibibytes)]
    pub kv_offloading_size: f64,
    /// Worker threads of the CPU backend, and of loading onto a GPU [default: the cores available]
    #[arg(long, value_parser = positive)]
    pub threads: Option<usize>,
    /// Seed for requests that bring none
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Most log-probabilities that a request may ask for at each position
    #[arg(long, default_value_t = 20)]
    pub max_logprobs: u32,
    /// Chat template: a file, or the template itself [default: the model's]
    #[arg(long)]
    pub chat_template: Option<String>,
    /// Where sampling defaults come from: auto (the model's generation_config.json), vllm (none), or a folder with that file
    #[arg(long, default_value = "auto")]
    pub generation_config: String,
    /// Hint server: http://HOST:PORT, unix:PATH or none
    #[arg(long, env = "TOKENFLOW_HINT_URL")]
    pub hint_url: Option<String>,
    /// What the health of the clients' links does to the step budget
    #[arg(long, value_enum, default_value_t)]
    pub pacing: PacingArg,
    /// Experimental: the control law of --pacing per-connection
    #[arg(long, value_name = "LAW", value_parser = pacing_law(), default_value = PacingLaw::default().name())]
    pub pacing_law: PacingLaw,
    /// Most tokens per second of any one stream, such as a reading speed [default: no limit]
    #[arg(long, value_parser = positive_rate)]
    pub max_stream_rate: Option<f64>,
    /// Lines of JSON instead of text
    #[arg(long)]
    pub log_json: bool,
    #[command(flatten)]
    pub scheduling: SchedulingArgs,
    #[command(flatten)]
    pub compatibility: VllmFlags,
}

#[derive(Args, Debug, Clone)]
pub struct ServeArgs {
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Address to listen on; 0.0.0.0 takes all interfaces
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes any free one, which the first line of the output names
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Tokens in a chunk of a stream; the first token always goes at once
    #[arg(long, default_value_t = 1, value_parser = positive)]
    pub stream_interval: usize,
    /// Give every token an event of its own also on links that are behind, where several share one otherwise
    #[arg(long)]
    pub no_coalesce_events: bool,
    /// Seconds that SIGTERM waits for running requests
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub shutdown_timeout: Duration,
    /// Log every request also when it arrives, with its parameters
    #[arg(long, overrides_with = "disable_log_requests")]
    pub enable_log_requests: bool,
    /// Do not log the requests that went well
    #[arg(long, alias = "disable-uvicorn-access-log", alias = "no-enable-log-requests", overrides_with = "enable_log_requests")]
    pub disable_log_requests: bool,
    #[command(flatten)]
    pub api: ApiArgs,
}

#[derive(Args, Debug, Clone)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Lines of JSON: OpenAI's batch form with custom_id, url and body, or just what a route takes, such as {"prompt": "..."}
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Grows by one line for each answer, in OpenAI's batch form; what it has is not asked again
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Counts and rates of the run, as JSON [default: OUTPUT with .summary.json]
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Requests in the engine at a time [default: --max-num-seqs]
    #[arg(long, value_parser = positive)]
    pub concurrency: Option<usize>,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("must be a whole number above 0".to_owned()),
    }
}

fn block_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=MAX_BLOCK_SIZE).contains(&n) => Ok(n),
        _ => Err(format!("must be a whole number within 1 and {MAX_BLOCK_SIZE}")),
    }
}

fn pacing_law() -> impl TypedValueParser<Value = PacingLaw> {
    PossibleValuesParser::new(PacingLaw::NAMES).try_map(|name| name.parse::<PacingLaw>())
}

fn positive_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n.is_finite() => Ok(n),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn gibibytes(text: &str) -> Result<f64, String> {
    // A petabyte is a slip of the keyboard.
    let gib = text.parse().ok().filter(|gib| (0.0..=1_048_576.0).contains(gib));
    gib.ok_or_else(|| "must be a number of GiB, 0 or more".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()).ok_or_else(|| "must be a number of seconds, 0 or more".to_owned())
}

/// vLLM's rule: a lower-case suffix counts by 1000, an upper-case one by 1024.
fn human_count(text: &str) -> Result<usize, String> {
    let error = || format!("'{text}' is not a count such as 4096, 4k or 4K");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "K" => 1024.0,
        "M" => 1024.0 * 1024.0,
        "G" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(error()),
    };
    let number: f64 = digits.parse().map_err(|_| error())?;
    let count = number * factor;
    if (1.0..1e15).contains(&count) { Ok(count as usize) } else { Err(error()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn counts_follow_vllms_suffixes() {
        assert_eq!(human_count("4096"), Ok(4096));
        assert_eq!(human_count("4k"), Ok(4000));
        assert_eq!(human_count("4K"), Ok(4096));
        assert_eq!(human_count("1.5k"), Ok(1500));
        for bad in ["", "k", "-1", "4x", "0", "1e99", "nan"] {
            assert!(human_count(bad).is_err(), "{bad}");
        }
    }
}
