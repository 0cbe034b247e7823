//! `cargo xtask`: the project's own commands. Each installs what it needs when it runs as root, and says what is missing when it does not.

mod build;
mod build_ebpf;
mod build_kernels;
mod demo;
mod experiment;
mod fuzz;
mod gpu_check;
mod interrupt;
mod requirements;
mod simulate;
mod soak;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "TokenFlow's own commands")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build everything, start the hint server and the engine on the demo model, and stream an answer with live Rate and Health
    Demo(demo::DemoArgs),
    /// Build the kernel program from source and refresh the object that the hint server embeds
    BuildEbpf {
        /// Compare with the committed object instead, and fail where the instructions differ
        #[arg(long)]
        check: bool,
    },
    /// Run an experiment on congested links as root: each mode of pacing in turn, then a summary, plots and a page
    Experiment(experiment::ExperimentArgs),
    /// Compile the GPU kernels for every kind of card, and report registers and memory; nothing may spill
    BuildKernels(build_kernels::BuildKernelsArgs),
    /// Fuzz every parser of foreign data: weights, configs, requests, what proxies, hubs and hosts say; for some seconds each
    Fuzz(fuzz::FuzzArgs),
    /// Check and measure a GPU: here, by a kit to carry elsewhere, or an emulated one
    GpuCheck(gpu_check::GpuCheckArgs),
    /// Run every test
    Test(test::TestArgs),
    /// Run scenarios in virtual time and compare control laws
    Simulate(simulate::SimulateArgs),
    /// Send random clients to an engine for a while: it must be left as it was, with every KV block free and its memory flat
    Soak(soak::SoakArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Demo(args) => demo::run(&args),
        Task::BuildEbpf { check } => build_ebpf::run(check),
        Task::Experiment(args) => experiment::run(&args),
        Task::BuildKernels(args) => build_kernels::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::GpuCheck(args) => gpu_check::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Simulate(args) => simulate::run(&args),
        Task::Soak(args) => soak::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if interrupt::requested() => {
            eprintln!("stopped: {error}");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
