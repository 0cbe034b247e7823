//! What an operator may say on the command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokenflow_ebpf_common::MAX_WATCH_PORTS;

/// Measures the health of TCP connections and publishes it for TokenFlow engines and clients.
#[derive(Clone, Debug, Parser)]
#[command(name = "tokenflow-hint-server", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Write what the probe measures to a file, for `replay`
    Record(RecordArgs),
    /// Score a recorded file again, in its own time
    Replay(ReplayArgs),
}

/// Serving, which is what happens without a command.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Address to serve HTTP on; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,

    /// Serve the same on this unix socket too
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    #[command(flatten)]
    pub probe: ProbeArgs,

    /// Bytes of one token's chunk on the wire, by which token rates are estimated
    #[arg(long, value_name = "N", default_value_t = 220, value_parser = clap::value_parser!(u32).range(1..))]
    pub bytes_per_token: u32,

    /// Token that readers on other hosts must send ('Authorization: Bearer TOKEN'); then readers on loopback see no addresses without it
    #[arg(long, value_name = "TOKEN", env = "TOKENFLOW_HINT_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// The same from a file, which other users cannot see in the list of processes
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,

    /// Name by which readers without the token may ask too, beside localhost and addresses; may be given several times
    #[arg(long, value_name = "HOST")]
    pub allow_host: Vec<String>,

    /// Share connections with other hosts' hint servers through this Redis: redis://HOST:PORT, redis+unix:///PATH
    #[arg(long, value_name = "URL", env = "TOKENFLOW_REDIS_URL", hide_env_values = true)]
    pub redis: Option<String>,

    /// Name of this host for the others; its host name by default
    #[arg(long, value_name = "NAME", requires = "redis")]
    pub host_name: Option<String>,

    /// Engine whose budget and paced requests the page shows: http://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub engine_url: Option<String>,

    /// An experiment's summary.json, whose modes the page compares; may be repeated
    #[arg(long, value_name = "FILE")]
    pub experiment: Vec<PathBuf>,
}

/// What is measured, and with what.
#[derive(Clone, Debug, Args)]
pub struct ProbeArgs {
    /// Local ports whose connections are measured: those of the engines
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_value = "8000", value_parser = clap::value_parser!(u16).range(1..))]
    pub watch_port: Vec<u16>,

    /// cgroup v2 folder whose processes' connections the kernel program sees; the whole hierarchy by default
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,

    /// What measures: the kernel program with socket diagnostics, socket diagnostics alone, or the best that works
    #[arg(long, value_enum, default_value_t)]
    pub probe: ProbeChoice,

    /// Have the kernel count what its program costs, for /metrics; counting itself costs a little
    #[arg(long)]
    pub bpf_stats: bool,
}

#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// File to write, JSON lines
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,

    #[command(flatten)]
    pub probe: ProbeArgs,

    /// Stop after this many seconds; at a signal in any case
    #[arg(long = "for", value_name = "SECONDS")]
    pub seconds: Option<f64>,

    /// Time between two looks, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub interval_ms: u32,

    /// Write the connections' addresses too, which are left out otherwise
    #[arg(long)]
    pub with_addresses: bool,

    /// What readers of the file should know
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// File that `record` wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Write every connection's score after every look to this file, JSON lines
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,

    /// Bytes of one token's chunk on the wire, by which token rates are estimated
    #[arg(long, value_name = "N", default_value_t = 220, value_parser = clap::value_parser!(u32).range(1..))]
    pub bytes_per_token: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProbeChoice {
    #[default]
    Auto,
    Ebpf,
    SockDiag,
}

impl ProbeArgs {
    /// What clap cannot check by itself.
    ///
    /// # Errors
    /// One sentence that names the flag.
    pub fn validate(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.watch_port.len() <= MAX_WATCH_PORTS,
            "--watch-port lists {} ports, more than the {MAX_WATCH_PORTS} that can be watched",
            self.watch_port.len()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["tokenflow-hint-server"], args].concat())
    }

    #[test]
    fn defaults_and_flags() {
        Cli::command().debug_assert();
        let cli = parse(&[]).unwrap().serve;
        assert_eq!(
            (cli.listen.to_string(), cli.probe.watch_port, cli.probe.probe),
            ("127.0.0.1:5000".to_owned(), vec![8000], ProbeChoice::Auto)
        );
        let cli = parse(&["--watch-port", "8000,8001", "--probe", "sock-diag", "--socket", "/run/h.sock"]).unwrap().serve;
        assert_eq!((cli.probe.watch_port, cli.probe.probe), (vec![8000, 8001], ProbeChoice::SockDiag));
    }

    #[test]
    fn commands_take_their_own_flags() {
        let Some(Command::Record(record)) = parse(&["record", "--out", "t", "--watch-port", "9", "--for", "1.5"]).unwrap().command else {
            panic!("no record");
        };
        assert_eq!((record.probe.watch_port, record.seconds, record.interval_ms), (vec![9], Some(1.5), 50));
        assert!(matches!(parse(&["replay", "t"]).unwrap().command, Some(Command::Replay(_))));
        assert!(parse(&["--listen", "127.0.0.1:1", "replay", "t"]).is_err());
        assert!(parse(&["record"]).unwrap_err().to_string().contains("--out"));
    }

    #[test]
    fn bad_values_name_their_flag() {
        for (args, flag) in [
            (["--watch-port", "0"], "--watch-port"),
            (["--watch-port", "8000,x"], "--watch-port"),
            (["--listen", "5000"], "--listen"),
            (["--probe", "xdp"], "--probe"),
            (["--bytes-per-token", "0"], "--bytes-per-token"),
        ] {
            assert!(parse(&args).unwrap_err().to_string().contains(flag), "{args:?}");
        }
        let many = (1..=17).map(|port| port.to_string()).collect::<Vec<_>>().join(",");
        let error = parse(&["--watch-port", &many]).unwrap().serve.probe.validate().unwrap_err().to_string();
        assert!(error.contains("--watch-port"), "{error}");
    }
}
