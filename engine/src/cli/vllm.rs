//! Flags of `vllm serve` that operators commonly pass and that mean nothing here, or ask for what this engine does not have.
//!
//! One table: each is either ignored with a line that says why, or refused with one. Nothing is dropped in silence.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// Nothing; there is also a `--no-` form, which takes it back.
    Nothing,
    /// One value.
    One,
    /// One or more values.
    Many,
}

use Takes::{Many, Nothing, One};

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Accepted: the reason why it changes nothing.
    Ignore(&'static str),
    /// Accepted where the value is one of these, which ask for nothing; otherwise refused for the reason.
    Only(&'static [&'static str], &'static str),
    /// Refused: the reason.
    Refuse(&'static str),
}

use Answer::{Ignore, Only, Refuse};

const ONE_DEVICE: &str = "this engine runs on one device so far";
const GRAPH_SIZES: &str = "graphs are recorded for sizes that --max-num-seqs bounds";
const ONE_COMPILATION: &str = "kernels are compiled in one way";
const NO_PYTHON: &str = "nothing here is written in Python";
const NO_LORA: &str = "adapters are not supported";
const NO_MEDIA: &str = "models here read text only";

const FLAGS: &[(&str, Takes, Answer)] = &[
    // Loading.
    ("trust-remote-code", Nothing, Ignore("no code that comes with a model is ever run")),
    ("use-tqdm-on-load", Nothing, Ignore("progress is shown on terminals")),
    ("safetensors-load-strategy", One, Ignore("weights are mapped and converted once")),
    ("max-parallel-loading-workers", One, Ignore("weights are read by all cores")),
    ("load-format", One, Only(&["auto", "hf", "safetensors", "gguf"], "weights are read from safetensors or GGUF files")),
    ("quantization", One, Ignore("the model's files say how they are quantised")),
    ("tokenizer", One, Refuse("the tokenizer comes with the model, from its folder or its GGUF file")),
    ("tokenizer-mode", One, Only(&["auto", "hf", "fast"], "tokenizers are read from tokenizer.json or a GGUF file")),
    ("config-format", One, Only(&["auto", "hf"], "configurations are read from config.json or a GGUF file")),
    ("model-impl", One, Only(&["auto", "vllm"], "architectures are written in this engine")),
    ("convert", One, Only(&["auto", "none"], "--runner pooling makes an embedding model of any")),
    ("hf-overrides", One, Only(&["{}"], "edit the model's config.json instead")),
    ("override-generation-config", One, Only(&["{}"], "set the parameters in requests, or edit generation_config.json")),
    ("skip-tokenizer-init", Nothing, Refuse("the API needs the tokenizer")),
    ("enable-sleep-mode", Nothing, Refuse("weights stay in memory until the process ends")),
    // Memory and devices.
    ("swap-space", One, Ignore("--kv-offloading-size says how much memory blocks are offloaded to")),
    ("cpu-offload-gb", One, Only(&["0", "0.0"], "a model's weights are on one device")),
    ("kv-offloading-backend", One, Only(&["native"], "blocks are offloaded to the memory of this process")),
    ("kv-transfer-config", One, Refuse("the KV cache is not shared between engines")),
    ("tensor-parallel-size", One, Only(&["1"], ONE_DEVICE)),
    ("pipeline-parallel-size", One, Only(&["1"], ONE_DEVICE)),
    ("data-parallel-size", One, Only(&["1"], ONE_DEVICE)),
    ("decode-context-parallel-size", One, Only(&["1"], ONE_DEVICE)),
    ("prefill-context-parallel-size", One, Only(&["1"], ONE_DEVICE)),
    ("nnodes", One, Only(&["1"], ONE_DEVICE)),
    ("node-rank", One, Only(&["0"], ONE_DEVICE)),
    ("headless", Nothing, Refuse(ONE_DEVICE)),
    ("enable-expert-parallel", Nothing, Ignore("one device holds all experts")),
    ("enable-eplb", Nothing, Ignore("one device holds all experts")),
    ("enable-dbo", Nothing, Ignore("one device has no communication to overlap")),
    ("distributed-executor-backend", One, Ignore(ONE_DEVICE)),
    ("disable-custom-all-reduce", Nothing, Ignore(ONE_DEVICE)),
    ("api-server-count", One, Only(&["1"], "one process serves all connections")),
    // Kernels.
    ("cudagraph-capture-sizes", Many, Ignore(GRAPH_SIZES)),
    ("max-cudagraph-capture-size", One, Ignore(GRAPH_SIZES)),
    ("compilation-config", One, Ignore(ONE_COMPILATION)),
    ("optimization-level", One, Ignore(ONE_COMPILATION)),
    ("attention-backend", One, Ignore("each device has its own attention kernels")),
    ("disable-cascade-attn", Nothing, Ignore("each device has its own attention kernels")),
    // Scheduling.
    ("enable-chunked-prefill", Nothing, Ignore("prompts are always computed in chunks that fit the step's budget")),
    ("prefix-caching-hash-algo", One, Ignore("the prefix cache has one hash")),
    ("long-prefill-token-threshold-adaptive", Nothing, Ignore("long prompts yield only while others want tokens")),
    ("scheduler-cls", One, Refuse(NO_PYTHON)),
    // Adapters and media.
    ("enable-lora", Nothing, Refuse(NO_LORA)),
    ("lora-modules", Many, Refuse(NO_LORA)),
    ("max-loras", One, Ignore(NO_LORA)),
    ("max-lora-rank", One, Ignore(NO_LORA)),
    ("limit-mm-per-prompt", One, Ignore(NO_MEDIA)),
    ("mm-processor-kwargs", One, Ignore(NO_MEDIA)),
    ("mm-processor-cache-gb", One, Ignore(NO_MEDIA)),
    ("skip-mm-profiling", Nothing, Ignore(NO_MEDIA)),
    ("language-model-only", Nothing, Ignore(NO_MEDIA)),
    ("allowed-local-media-path", One, Refuse(NO_MEDIA)),
    // Logs and metrics.
    ("disable-log-stats", Nothing, Ignore("statistics are in /metrics and not in the log")),
    ("aggregate-engine-logging", Nothing, Ignore("there is one engine")),
    ("uvicorn-log-level", One, Ignore("RUST_LOG sets what is logged")),
    ("max-log-len", One, Ignore("prompts are never logged")),
    ("log-error-stack", Nothing, Ignore("errors are logged in one line")),
    ("enable-log-outputs", Nothing, Refuse("outputs are never logged")),
    ("enable-server-load-tracking", Nothing, Ignore("/load always counts")),
    ("show-hidden-metrics-for-version", One, Ignore("no metric is hidden")),
    ("otlp-traces-endpoint", One, Refuse("traces are not exported; see /metrics and --log-json")),
    // The HTTP server.
    ("disable-frontend-multiprocessing", Nothing, Ignore("one process serves all connections")),
    ("response-role", One, Only(&["assistant"], "answers are the assistant's")),
    ("uds", One, Refuse("the API listens on TCP, whose health it measures")),
    ("grpc", Nothing, Refuse("the API is HTTP")),
    ("middleware", Many, Refuse(NO_PYTHON)),
    ("logits-processors", Many, Refuse(NO_PYTHON)),
    ("tool-parser-plugin", One, Refuse(NO_PYTHON)),
    ("reasoning-parser-plugin", One, Refuse(NO_PYTHON)),
    ("io-processor-plugin", One, Refuse(NO_PYTHON)),
    ("config", One, Refuse("give the flags on the command line")),
];

/// vLLM's flags of several letters behind one dash, which clap does not know.
const SHORT_FLAGS: &[(&str, &str)] = &[
    ("-tp", "--tensor-parallel-size"),
    ("-pp", "--pipeline-parallel-size"),
    ("-dp", "--data-parallel-size"),
    ("-dcp", "--decode-context-parallel-size"),
    ("-pcp", "--prefill-context-parallel-size"),
    ("-ep", "--enable-expert-parallel"),
    ("-asc", "--api-server-count"),
    ("-cc", "--compilation-config"),
    ("-sc", "--speculative-config"),
];

/// A command line in vLLM's spelling as clap reads it: underscores in long flags' names become dashes, flags of several letters get their
/// long names, and a `--no-` form of this table's flags takes them back.
pub fn spelt_out(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::new();
    for argument in arguments.into_iter().map(spelt) {
        let negated = argument.to_str().and_then(|text| text.strip_prefix("--no-"));
        match negated.filter(|name| FLAGS.iter().any(|(flag, takes, _)| flag == name && *takes == Nothing)) {
            Some(name) => {
                let taken_back = format!("--{name}");
                out.retain(|earlier| *earlier != *taken_back);
            }
            None => out.push(argument),
        }
    }
    out
}

fn spelt(argument: OsString) -> OsString {
    let Some(text) = argument.to_str() else { return argument };
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let name = match SHORT_FLAGS.iter().find(|(short, _)| *short == name) {
        Some((_, long)) => (*long).to_owned(),
        None if name.starts_with("--") => name.replace('_', "-"),
        None => return argument,
    };
    value.map_or(name.clone(), |value| format!("{name}={value}")).into()
}

/// Those of the table that were given, with their values.
#[derive(Clone, Debug, Default)]
pub struct VllmFlags {
    given: Vec<(&'static str, Answer, Vec<String>)>,
}

impl VllmFlags {
    /// One sentence for each flag that has no effect.
    ///
    /// # Errors
    /// One sentence about the first flag that asks for what this engine does not have.
    pub fn check(&self) -> Result<Vec<String>, String> {
        let mut ignored = Vec::new();
        for (name, answer, values) in &self.given {
            let shown = if values.is_empty() { format!("--{name}") } else { format!("--{name} {}", values.join(" ")) };
            match answer {
                Ignore(reason) => ignored.push(format!("{shown} has no effect: {reason}")),
                Only(neutral, _) if values.iter().all(|value| neutral.contains(&value.as_str())) => {}
                Only(_, reason) | Refuse(reason) => return Err(format!("{shown} is not supported: {reason}")),
            }
        }
        Ok(ignored)
    }
}

impl Args for VllmFlags {
    fn augment_args(mut command: Command) -> Command {
        for &(name, takes, _) in FLAGS {
            let flag = Arg::new(name).long(name).hide(true);
            command = match takes {
                Nothing => command.arg(flag.action(ArgAction::SetTrue)),
                One => command.arg(flag.action(ArgAction::Append).allow_hyphen_values(true)),
                Many => command.arg(flag.action(ArgAction::Append).num_args(1..)),
            };
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for VllmFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for &(name, takes, answer) in FLAGS {
            match takes {
                Nothing if matches.get_flag(name) => given.push((name, answer, Vec::new())),
                Nothing => {}
                One | Many => given.extend(matches.get_many(name).map(|values| (name, answer, values.cloned().collect()))),
            }
        }
        Ok(Self { given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn check(line: &str) -> Result<Vec<String>, String> {
        let words = ["tokenflow-engine", "serve"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        let Command::Serve(args) = Cli::try_parse_from(spelt_out(words)).unwrap_or_else(|e| panic!("{line}: {e}")).command else {
            panic!("serve was asked for")
        };
        args.engine.compatibility.check()
    }

    #[test]
    fn a_line_that_operators_write_for_vllm_is_taken() {
        let line = "--trust-remote-code --gpu_memory_utilization 0.9 -tp 1 --tensor-parallel-size=1 --enforce-eager --max-model-len 2048 \
                    --async-scheduling --enable-chunked-prefill --no-enable-log-outputs --disable-log-stats --swap-space 4";
        let ignored = check(line).unwrap();
        assert!(ignored.iter().any(|line| line.starts_with("--swap-space 4 has no effect")), "{ignored:?}");
        assert_eq!(ignored.len(), 4, "{ignored:?}");
    }

    #[test]
    fn what_is_missing_is_refused_with_its_name_and_value() {
        assert_eq!(check("-tp 2").unwrap_err(), "--tensor-parallel-size 2 is not supported: this engine runs on one device so far");
        assert!(check("--enable-lora").unwrap_err().starts_with("--enable-lora is not supported"));
        assert!(check("--lora-modules a=b c=d").unwrap_err().starts_with("--lora-modules a=b c=d"));
    }

    #[test]
    fn every_flag_of_the_table_is_parsed_and_answered() {
        for (name, takes, answer) in FLAGS {
            let line = if *takes == Nothing { format!("--{name}") } else { format!("--{name} nonsense") };
            match (check(&line), answer) {
                (Ok(ignored), Ignore(_)) => assert_eq!(ignored.len(), 1, "{line}"),
                (Err(sentence), Only(..) | Refuse(_)) => assert!(sentence.contains(name), "{sentence}"),
                (result, _) => panic!("{line}: {result:?}"),
            }
            if *takes == Nothing {
                assert_eq!(check(&format!("--{name} --no-{name}")), Ok(Vec::new()), "{name}");
            }
        }
    }

    #[test]
    fn only_names_of_long_flags_are_spelt_anew() {
        let spelt = spelt_out(["x", "serve", "my_model", "--served_model_name=a_b", "-tp=2", "-q", "--", "-"].map(OsString::from));
        assert_eq!(spelt, ["x", "serve", "my_model", "--served-model-name=a_b", "--tensor-parallel-size=2", "-q", "--", "-"]);
    }
}
