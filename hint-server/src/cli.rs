//! What an operator may say on the command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};
use tokenflow_ebpf_common::MAX_WATCH_PORTS;

/// Measures the health of TCP connections and publishes it for TokenFlow engines and clients.
#[derive(Clone, Debug, Parser)]
#[command(name = "tokenflow-hint-server", version)]
pub struct Cli {
    /// Address to serve HTTP on; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,

    /// Serve the same on this unix socket too
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Local ports whose connections are measured: those of the engines
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_value = "8000", value_parser = clap::value_parser!(u16).range(1..))]
    pub watch_port: Vec<u16>,

    /// cgroup v2 folder whose processes' connections the kernel program sees; the whole hierarchy by default
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,

    /// What measures: the kernel program with socket diagnostics, socket diagnostics alone, or the best that works
    #[arg(long, value_enum, default_value_t)]
    pub probe: ProbeChoice,

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

impl Cli {
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
        let cli = parse(&[]).unwrap();
        assert_eq!((cli.listen.to_string(), cli.watch_port, cli.probe), ("127.0.0.1:5000".to_owned(), vec![8000], ProbeChoice::Auto));
        let cli = parse(&["--watch-port", "8000,8001", "--probe", "sock-diag", "--socket", "/run/h.sock"]).unwrap();
        assert_eq!((cli.watch_port, cli.probe), (vec![8000, 8001], ProbeChoice::SockDiag));
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
        let error = parse(&["--watch-port", &many]).unwrap().validate().unwrap_err().to_string();
        assert!(error.contains("--watch-port"), "{error}");
    }
}
