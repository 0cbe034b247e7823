//! `tokenflow-engine`: parses the command line, loads the model, serves until told to stop.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::Parser;
use tokenflow_engine::{
    api::{self, ApiKeys, ApiState},
    cli::{Cli, Command, ServeArgs, spelt_out},
    config::{EngineConfig, ServerConfig},
    logging::{self, RequestLines},
    startup,
    text::Engine,
};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let Command::Serve(args) = Cli::parse_from(spelt_out(std::env::args_os())).command;
    logging::start(&args.engine, request_lines(&args));
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Which lines about requests the flags ask for.
fn request_lines(args: &ServeArgs) -> RequestLines {
    match (args.enable_log_requests, args.disable_log_requests) {
        (true, _) => RequestLines::ArrivalsToo,
        (_, true) => RequestLines::Troubles,
        _ => RequestLines::Ends,
    }
}

fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let config = EngineConfig::from_args(&args.engine)?;
    let server = ServerConfig::new(args, &config.model)?;
    let tls = server.tls.as_ref().map(|(certificates, key)| api::tls::acceptor(certificates, key)).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let engine = Engine::load(config.clone())?;
        let listener = api::server::bind(server.listen).await?;
        let url = format!("{}://{}", if tls.is_some() { "https" } else { "http" }, listener.local_addr()?);
        if args.engine.log_json {
            startup::log(&config, engine.info(), &url);
        } else {
            eprint!("{}", startup::table(&config, engine.info(), &url));
        }
        println!("tokenflow-engine serving {} on {url}", server.served_model_names[0]);
        let mut state = ApiState::new(engine.clone(), server.served_model_names, server.model_root);
        state.chat = server.chat;
        state.api_keys = ApiKeys::new(server.api_keys);
        let router = server.access.apply(api::router(Arc::new(state)));
        let stop = async {
            terminated().await;
            tracing::info!(timeout = ?server.shutdown_timeout, "draining: no new requests are taken, running ones may finish");
            engine.drain();
        };
        let abort = || engine.abort_all("the server is stopping");
        api::server::serve(listener, tls, router, stop, server.shutdown_timeout, abort).await;
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
