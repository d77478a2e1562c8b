//! `v6 bench`: measures what V6 promises, on nodes of its own, and says of each bar whether it is met.
//!
//! It starts this binary several times in temporary directories, on loopback and free ports, and never touches the owner's
//! node. Every row starts from a mesh of its own. What others need for the same work is measured in the same run, in turns.

mod alike;
mod bystander;
mod bytes;
mod faults;
mod history;
mod idle;
mod latency;
mod ledger;
mod nodes;
mod peers;
mod report;
mod stats;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::interrupt::Interrupts;
use super::output;
use report::{Report, Row};

/// Finished jobs of the mesh that a node joins.
const JOIN_JOBS: usize = 100_000;
const JOIN_JOBS_QUICK: usize = 5_000;
/// Longest that any measured work may take.
const TAKES_MAX: std::time::Duration = std::time::Duration::from_secs(600);
/// A quick run repeats a fifth as often.
const QUICK_DIVISOR: usize = 5;

/// Measure what V6 promises, on nodes of its own.
///
/// It starts nodes in temporary directories on this machine, measures each bar, prints one table and removes everything.
/// A full run takes half an hour; let the machine do nothing else meanwhile. Ends with 1 if a bar is not met.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 bench                          every row\n  v6 bench --quick                  fewer repeats, smaller sizes: a few minutes\n  v6 bench --only start --only run  two rows\n  v6 bench --only array --python ~/venv/bin/python   beside HyperQueue (pip install hyperqueue)"
)]
pub(super) struct BenchArgs {
    /// Only this row (may be repeated)
    #[arg(long, value_enum, value_name = "NAME")]
    only: Vec<RowName>,
    /// Fewer repeats and smaller sizes
    #[arg(long)]
    quick: bool,
    /// Finished jobs for the row `join` [default: 100000, with --quick 5000]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Repeats of each measurement [default: its own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    repeats: Option<u16>,
    /// Python that may have the package hyperqueue
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
    /// Directory with others' texts for the row `alike`
    #[arg(long, value_name = "DIR", env = "V6_BENCH_TEXTS", default_value = "target/tools/texts")]
    texts: PathBuf,
    /// Another build of v6 to measure [default: this one]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Say what is being done, on stderr
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RowName {
    /// Submit to process started on another node.
    Start,
    /// `v6 run -- true` as a whole.
    Run,
    /// 5,000 tasks as one array.
    Array,
    /// 50,000 tasks as one array.
    LongArray,
    /// 1,000 jobs in one batch.
    Batch,
    /// 1,000 jobs one after the other.
    Sequence,
    /// 1,000 tasks that sleep, on 100 slots.
    Sleep,
    /// An idle node's memory and time.
    Idle,
    /// A job's cost to a node without a part in it.
    Bystander,
    /// A large artifact between two nodes.
    Transfer,
    /// A tree with one changed file.
    Tree,
    /// A killed owner.
    Kill,
    /// A cold join.
    Join,
    /// What finished jobs cost a node.
    History,
    /// Duplicates found in others' texts.
    Alike,
    /// What a ledger of many entries costs.
    Ledger,
}

/// How much to measure.
#[derive(Debug)]
struct Plan {
    quick: bool,
    jobs: usize,
    python: PathBuf,
    binary: PathBuf,
    repeats: Option<u16>,
    texts: PathBuf,
}

impl Plan {
    /// Repeats of a measurement that usually has so many.
    fn repeats(&self, usual: usize) -> usize {
        match self.repeats {
            Some(repeats) => repeats.into(),
            None if self.quick => (usual / QUICK_DIVISOR).max(1),
            None => usual,
        }
    }
}

static VERBOSE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Says on stderr what is being done, where that is wanted.
fn say(line: &str) {
    if VERBOSE.load(std::sync::atomic::Ordering::Relaxed) {
        output::complain(line);
    }
}

pub(super) fn main(args: BenchArgs) -> anyhow::Result<ExitCode> {
    VERBOSE.store(args.verbose, std::sync::atomic::Ordering::Relaxed);
    super::block_on(async move {
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            // Dropping the run ends its nodes and removes their directories.
            interrupt = interrupts.next() => Ok(ExitCode::from(interrupt.exit_code())),
            code = all(args) => code,
        }
    })
    .and_then(|ended| ended)
}

async fn all(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let jobs = args.jobs.unwrap_or(if args.quick { JOIN_JOBS_QUICK } else { JOIN_JOBS });
    let binary = match args.binary {
        Some(binary) => binary,
        None => std::env::current_exe().context("this program's own file is not known")?,
    };
    let plan = Plan { quick: args.quick, jobs, python: args.python, binary, repeats: args.repeats, texts: args.texts };
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        binary: plan.binary.display().to_string(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        load_before: idle::load(),
        load_after: None,
        rows: Vec::new(),
    };
    let wanted = RowName::value_variants().iter().filter(|name| args.only.is_empty() || args.only.contains(name));
    for name in wanted {
        say(&format!("{name:?}"));
        report.rows.push(measure(*name, &plan).await);
    }
    report.load_after = idle::load();
    if args.json {
        output::json(&report)?;
    } else {
        report.print();
    }
    let failed = report.rows.iter().any(|row| row.met == Some(false));
    Ok(ExitCode::from(u8::from(failed)))
}

/// Measures one row; what keeps it from being measured is its result.
async fn measure(name: RowName, plan: &Plan) -> Row {
    let (word, measured) = match name {
        RowName::Start => ("start", latency::start(plan).await),
        RowName::Run => ("run", latency::run(plan).await),
        RowName::Array => ("array", throughput::array(plan).await),
        RowName::LongArray => ("long-array", throughput::long_array(plan).await),
        RowName::Sequence => ("sequence", throughput::sequence(plan).await),
        RowName::Sleep => ("sleep", throughput::sleep(plan).await),
        RowName::History => ("history", history::history(plan).await),
        RowName::Alike => ("alike", alike::alike(plan).await),
        RowName::Ledger => ("ledger", ledger::ledger(plan).await),
        RowName::Batch => ("batch", throughput::batch(plan).await),
        RowName::Idle => ("idle", idle::idle(plan).await),
        RowName::Bystander => ("bystander", bystander::bystander(plan).await),
        RowName::Transfer => ("transfer", bytes::transfer(plan).await),
        RowName::Tree => ("tree", bytes::tree(plan).await),
        RowName::Kill => ("kill", faults::kill(plan).await),
        RowName::Join => ("join", faults::join(plan).await),
    };
    measured.unwrap_or_else(|error| {
        say(&format!("{word}: {error:#}"));
        let mut row = Row::new(word, "", "").not_measured(&format!("{error:#}"));
        row.met = Some(false);
        row
    })
}
