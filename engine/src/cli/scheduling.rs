use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use serde::Deserialize;

use super::{positive, seconds};
use crate::scheduler::{Cap, Caps, NgramConfig, SchedulingPolicy};

/// Who runs when, and how long anybody waits.
#[derive(Args, Debug, Clone)]
pub struct SchedulingArgs {
    /// Compute every prompt from its first token on, although another began alike
    #[arg(long = "no-enable-prefix-caching", action = ArgAction::SetFalse, overrides_with = "_enable_prefix_caching")]
    pub enable_prefix_caching: bool,
    #[arg(long = "enable-prefix-caching", hide = true, overrides_with = "enable_prefix_caching")]
    _enable_prefix_caching: bool,
    /// Who goes first: fcfs (who came first) or priority (the lowest `priority` in requests)
    #[arg(long, value_enum, default_value_t)]
    pub scheduling_policy: PolicyArg,
    /// Most tokens that a long prompt gets of a step while others wait for theirs; 0 sets no bound [default: a quarter of the step's]
    #[arg(long)]
    pub long_prefill_token_threshold: Option<usize>,
    /// Guess tokens from what was said before, such as '{"method":"ngram","num_speculative_tokens":4}'
    #[arg(long, value_name = "JSON", value_parser = speculative_config)]
    pub speculative_config: Option<NgramConfig>,
    /// Most requests that may wait, of all and, where there are caps, of each tenant or connection that has its share; further ones are
    /// refused with 503 and Retry-After [default: no limit]
    #[arg(long, value_parser = positive)]
    pub max_waiting: Option<usize>,
    /// Most sequences of one tenant that run at a time, further ones wait; 0 sets no bound. A tenant is an API key, or where there are none
    /// whom a request's X-Tenant header or its `user` names; those that name nobody are one tenant
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_tenant_seqs: usize,
    /// Most generated tokens per second of all sequences of one tenant, which share them evenly; 0 sets no bound
    #[arg(long, value_name = "TOKENS", default_value_t = 0.0, value_parser = rate)]
    pub max_tenant_rate: f64,
    /// Most sequences of one connection that run at a time, further ones wait; 0 sets no bound. Trusted proxies' connections have none
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_connection_seqs: usize,
    /// Most generated tokens per second of all sequences of one connection; 0 sets no bound
    #[arg(long, value_name = "TOKENS", default_value_t = 0.0, value_parser = rate)]
    pub max_connection_rate: f64,
    /// Most seconds that a request waits before it starts [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = some_seconds)]
    pub max_queue_time: Option<Duration>,
    /// Most seconds that a request takes; requests may ask for less [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = some_seconds)]
    pub request_timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PolicyArg {
    /// First come, first served
    #[default]
    Fcfs,
    /// The lowest priority number first, then first come, first served
    Priority,
}

impl From<PolicyArg> for SchedulingPolicy {
    fn from(arg: PolicyArg) -> Self {
        match arg {
            PolicyArg::Fcfs => Self::Fcfs,
            PolicyArg::Priority => Self::Priority,
        }
    }
}

impl SchedulingArgs {
    /// What the four flags come to.
    pub fn caps(&self) -> Caps {
        let cap = |seqs: usize, rate: f64| Cap { max_seqs: (seqs > 0).then_some(seqs), max_rate: (rate > 0.0).then_some(rate) };
        Caps {
            tenant: cap(self.max_tenant_seqs, self.max_tenant_rate),
            connection: cap(self.max_connection_seqs, self.max_connection_rate),
        }
    }
}

/// 0, or a rate that time can be divided by.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n == 0.0 || (n.is_normal() && n > 0.0) => Ok(n),
        _ => Err("must be a number of tokens per second, 0 or more".to_owned()),
    }
}

fn some_seconds(text: &str) -> Result<Duration, String> {
    seconds(text).ok().filter(|time| !time.is_zero()).ok_or_else(|| "must be a number of seconds above 0".to_owned())
}

/// vLLM's fields, those that n-gram lookup has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Speculative {
    method: Option<String>,
    model: Option<String>,
    num_speculative_tokens: usize,
    prompt_lookup_max: Option<usize>,
    prompt_lookup_min: Option<usize>,
    disable_by_batch_size: Option<usize>,
}

/// Lookup of as many tokens as vLLM's, where neither bound is given.
const DEFAULT_LOOKUP: usize = 5;
/// With more sequences in a step, the rows of wrong guesses cost more than right ones save.
const DEFAULT_BATCH_SIZE: usize = 16;
/// Longer drafts cost more rows than they are likely to save.
const MAX_DRAFT: usize = 64;

fn speculative_config(text: &str) -> Result<NgramConfig, String> {
    let config: Speculative = serde_json::from_str(text).map_err(|error| format!("{error}"))?;
    let is_ngram = |name: &str| matches!(name, "ngram" | "[ngram]");
    match config.method.as_deref().or(config.model.as_deref()) {
        Some(name) if is_ngram(name) && config.model.as_deref().is_none_or(is_ngram) => {}
        Some(name) => return Err(format!("method '{name}' is not supported, only ngram")),
        None => return Err("method is missing: only ngram is supported".to_owned()),
    }
    let (max, min) = match (config.prompt_lookup_max, config.prompt_lookup_min) {
        (None, None) => (DEFAULT_LOOKUP, DEFAULT_LOOKUP),
        (Some(max), None) => (max, max),
        (None, Some(min)) => (min, min),
        (Some(max), Some(min)) => (max, min),
    };
    if min == 0 || min > max {
        return Err(format!("prompt_lookup_min is {min} and prompt_lookup_max {max}: they must be at least 1, and min not above max"));
    }
    if !(1..=MAX_DRAFT).contains(&config.num_speculative_tokens) {
        return Err(format!("num_speculative_tokens is {}, not within 1 and {MAX_DRAFT}", config.num_speculative_tokens));
    }
    Ok(NgramConfig {
        num_speculative_tokens: config.num_speculative_tokens,
        prompt_lookup_max: max,
        prompt_lookup_min: min,
        disable_by_batch_size: config.disable_by_batch_size.unwrap_or(DEFAULT_BATCH_SIZE),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        scheduling: SchedulingArgs,
    }

    fn parse(flags: &[&str]) -> Result<SchedulingArgs, String> {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(flags));
        line.map(|line| line.scheduling).map_err(|error| error.to_string())
    }

    #[test]
    fn prefix_caching_is_on_until_turned_off_and_the_last_word_counts() {
        let cached = |flags: &[&str]| parse(flags).unwrap().enable_prefix_caching;
        assert!(cached(&[]));
        assert!(cached(&["--enable-prefix-caching"]));
        assert!(!cached(&["--no-enable-prefix-caching"]));
        assert!(cached(&["--no-enable-prefix-caching", "--enable-prefix-caching"]));
        assert!(!cached(&["--enable-prefix-caching", "--no-enable-prefix-caching"]));
    }

    #[test]
    fn vllms_speculative_config_is_taken_with_its_defaults() {
        let config = |text| speculative_config(text);
        let ngram = NgramConfig { num_speculative_tokens: 4, prompt_lookup_max: 5, prompt_lookup_min: 5, disable_by_batch_size: 16 };
        assert_eq!(config(r#"{"method":"ngram","num_speculative_tokens":4}"#), Ok(ngram));
        assert_eq!(
            config(
                r#"{"model":"[ngram]","num_speculative_tokens":2,"prompt_lookup_max":4,"prompt_lookup_min":2,"disable_by_batch_size":1}"#
            ),
            Ok(NgramConfig { num_speculative_tokens: 2, prompt_lookup_max: 4, prompt_lookup_min: 2, disable_by_batch_size: 1 })
        );
        for (text, part) in [
            (r#"{"method":"eagle","num_speculative_tokens":4}"#, "eagle"),
            (r#"{"method":"ngram","model":"draft-1b","num_speculative_tokens":4}"#, "not supported"),
            (r#"{"num_speculative_tokens":4}"#, "method"),
            (r#"{"method":"ngram"}"#, "num_speculative_tokens"),
            (r#"{"method":"ngram","num_speculative_tokens":0}"#, "num_speculative_tokens"),
            (r#"{"method":"ngram","num_speculative_tokens":4,"prompt_lookup_max":2,"prompt_lookup_min":3}"#, "prompt_lookup_min"),
            (r#"{"method":"ngram","num_speculative_tokens":4,"prompt_lookup_min":0}"#, "prompt_lookup_min"),
            (r#"{"method":"ngram","num_speculative_tokens":4,"typo":1}"#, "typo"),
            ("4", "invalid type"),
        ] {
            let error = config(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(parse(&["--speculative-config", "{}"]).is_err_and(|error| error.contains("--speculative-config")));
    }

    #[test]
    fn caps_of_zero_are_none() {
        assert_eq!(parse(&[]).unwrap().caps(), Caps::default());
        assert_eq!(parse(&["--max-tenant-seqs", "0", "--max-connection-rate", "0"]).unwrap().caps(), Caps::default());
        let caps = parse(&["--max-tenant-seqs", "4", "--max-tenant-rate", "100", "--max-connection-rate", "2.5"]).unwrap().caps();
        assert_eq!(caps.tenant, Cap { max_seqs: Some(4), max_rate: Some(100.0) });
        assert_eq!(caps.connection, Cap { max_seqs: None, max_rate: Some(2.5) });
        for bad in ["-1", "nan", "inf", "1e-320", "x"] {
            assert!(parse(&[&format!("--max-tenant-rate={bad}")]).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_above_zero() {
        for flag in ["--max-waiting", "--max-queue-time", "--request-timeout"] {
            assert!(parse(&[flag, "0"]).is_err(), "{flag}");
            assert!(parse(&[flag, "3"]).is_ok(), "{flag}");
        }
        assert_eq!(parse(&["--request-timeout", "0.5"]).unwrap().request_timeout, Some(Duration::from_millis(500)));
    }
}
