//! The command, `offramp`. It parses arguments, calls the other crates, and prints their results.
//!
//! Every subcommand is one file with its arguments and its `run`. Results go to stdout, progress and errors
//! to stderr. With `--json` a result is one JSON value.

// These macros panic if they cannot write; `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod card;
mod chat;
mod dashboard;
mod demo;
mod download;
mod eval;
mod export;
mod failure;
mod formats;
mod generate;
mod generation;
mod inspect;
mod interrupt;
mod list;
mod live;
mod output;
mod pace;
mod plan;
mod prepare;
mod profile;
mod progress;
mod prompt;
mod pull;
mod quantize;
mod remove;
mod sampling;
mod screen;
mod serve;
mod several;
mod shape;
mod signals;
mod source;
mod speculate;
mod stories;
mod sweep;
mod train;
mod verify;

use anyhow::Context;
use clap::{Parser, Subcommand};
use offramp_eval::number;
use std::process::ExitCode;

/// Language models with early exits: train, measure and run them at any depth.
#[derive(Debug, Parser)]
#[command(name = "offramp", version, max_term_width = 100, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 a failure (a full disk, a training run that diverged), 2 a \
    mistake (a wrong argument, a damaged file), 141 the reader of stdout has gone; told to end: 130 by Ctrl-C, 143 by \
    SIGTERM, 129 by a terminal that hung up (a training run saves first, a server lets its texts end).";

/// The arguments of every subcommand.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Global {
    /// Print results as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Number of threads [default: one per physical core; of several processes that mpirun starts on a
    /// machine, each takes its part]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Prepare(prepare::Arguments),
    Train(train::Arguments),
    Eval(eval::Arguments),
    Bench(bench::Arguments),
    Generate(generate::Arguments),
    Chat(chat::Arguments),
    Serve(serve::Arguments),
    Inspect(inspect::Arguments),
    Pull(pull::Arguments),
    #[command(alias = "ls")]
    List(list::Arguments),
    #[command(alias = "rm")]
    Remove(remove::Arguments),
    Quantize(quantize::Arguments),
    Export(export::Arguments),
    Sweep(sweep::Arguments),
    Verify(verify::Arguments),
    Card(card::Arguments),
    Demo(demo::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return failure::report_usage(&error),
    };
    failure::guarded(|| run(&arguments).unwrap_or_else(|error| failure::report(&error)))
}

/// The physical cores of this process: of several that a launcher started on this machine, its part.
fn cores() -> usize {
    (offramp_engine::physical_cores() / offramp_ranks::on_this_machine()).max(1)
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // Before anything computes: kernels and threads cannot be chosen later.
    signals::listen().context("cannot listen for Ctrl-C")?;
    offramp_kernels::choose()?;
    let threads = arguments.global.threads.map(usize::from);
    offramp_engine::set_threads(threads.unwrap_or_else(cores))?;
    let json = arguments.global.json;
    match &arguments.command {
        Command::Prepare(arguments) => prepare::run(arguments, threads, json)?,
        Command::Train(arguments) => return train::run(arguments, json),
        Command::Eval(arguments) => eval::run(arguments, json)?,
        Command::Bench(arguments) => bench::run(arguments, json)?,
        Command::Generate(arguments) => generate::run(arguments, json)?,
        Command::Chat(arguments) => chat::run(arguments, json)?,
        Command::Serve(arguments) => return serve::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments, json)?,
        Command::Pull(arguments) => pull::run(arguments, json)?,
        Command::List(arguments) => list::run(arguments, json)?,
        Command::Remove(arguments) => remove::run(arguments, json)?,
        Command::Quantize(arguments) => quantize::run(arguments, json)?,
        Command::Export(arguments) => export::run(arguments, json)?,
        Command::Sweep(arguments) => sweep::run(arguments, json)?,
        Command::Verify(arguments) => verify::run(arguments, json)?,
        Command::Card(arguments) => card::run(arguments, json)?,
        Command::Demo(arguments) => demo::run(arguments, json)?,
    }
    Ok(ExitCode::SUCCESS)
}
