//! `tokenflow-engine`: parses the command line, loads the model, serves until told to stop.

use std::{io::IsTerminal, process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::Parser;
use tokenflow_engine::{
    api::{self, ApiState},
    cli::{Cli, Command, ServeArgs},
    config::{EngineConfig, ServerConfig},
    text::Engine,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let Command::Serve(args) = Cli::parse().command;
    start_logging(args.log_json);
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if json { log.json().init() } else { log.init() }
}

fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let config = EngineConfig::from_args(args)?;
    let server = ServerConfig::new(args, &config.model);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let engine = Engine::load(config)?;
        let listener = api::server::bind(server.listen).await?;
        println!("tokenflow-engine serving {} on http://{}", server.served_model_names[0], listener.local_addr()?);
        let state = Arc::new(ApiState::new(engine.clone(), server.served_model_names, server.model_root));
        let stop = async {
            terminated().await;
            tracing::info!(timeout = ?server.shutdown_timeout, "draining: no new requests are taken, running ones may finish");
            engine.drain();
        };
        let abort = || engine.abort_all("the server is stopping");
        api::server::serve(listener, api::router(state), stop, server.shutdown_timeout, abort).await;
        Ok(())
    })
}

async fn terminated() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
