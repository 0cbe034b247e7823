//! `tokenflow-engine`: parses the command line, loads the model, serves until told to stop or answers a file.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::Parser;
use tokenflow_engine::{
    api::{self, ApiKeys, ApiState},
    batch::{self, BatchConfig},
    cli::{Cli, Command, GenerateArgs, ServeArgs, spelt_out},
    config::{EngineConfig, ServerConfig},
    logging::{self, RequestLines},
    startup,
    text::Engine,
};
use tokenflow_hint_api::HintUrl;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let result = match Cli::parse_from(spelt_out(std::env::args_os())).command {
        Command::Serve(args) => {
            logging::start(&args.engine, request_lines(&args));
            serve(&args).map(|()| ExitCode::SUCCESS)
        }
        Command::Generate(args) => {
            logging::start(&args.engine, RequestLines::Troubles);
            generate(&args)
        }
    };
    match result {
        Ok(code) => code,
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
        state.stream_interval = server.stream_interval;
        state.trusted_proxies = server.trusted_proxies;
        state.coalesce_events = server.coalesce_events;
        state.api_keys = ApiKeys::new(server.api_keys);
        state.chat_page = server.chat_page;
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

/// Answers a file. 130 where it was interrupted, 1 where a line failed.
fn generate(args: &GenerateArgs) -> anyhow::Result<ExitCode> {
    // Nothing is streamed, so there is no link to be told of.
    let config = EngineConfig { hint_url: HintUrl::None, ..EngineConfig::from_args(&args.engine)? };
    let concurrency = args.concurrency.unwrap_or(config.max_num_seqs);
    let files = BatchConfig { input: args.input.clone(), output: args.output.clone(), concurrency };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let summary = runtime.block_on(batch::run(config, &files, terminated()))?;
    let path = args.summary.clone().unwrap_or_else(|| args.output.with_extension("summary.json"));
    batch::write_summary(&summary, &path)?;
    println!(
        "{} answered ({} failed), {} were there before, {} left; {} tokens in {:.1} s; summary: {}",
        summary.answered,
        summary.failed,
        summary.answered_before,
        summary.lines - summary.answered - summary.answered_before,
        summary.completion_tokens,
        summary.seconds,
        path.display()
    );
    Ok(match (summary.interrupted, summary.failed) {
        (true, _) => ExitCode::from(130),
        (_, 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
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
