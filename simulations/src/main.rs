//! `simulations`: runs of the mesh under a virtual clock.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use simulations::{Fault, JOBS_MAX, NODES_MAX, Plan, Report, Wish};

/// A run allocates and frees without end, on all cores.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The mesh under a virtual clock, network and disk. The same seed gives the same run.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One run: what it does is drawn from its seed
    Run(RunArgs),
    /// Many seeds side by side; prints failures only
    Sweep(SweepArgs),
    /// Makes each deliberate mistake in turn and looks for a seed that shows it
    Mutants {
        /// Seeds that are tried per mistake
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// One JSON list on stdout
        #[arg(long)]
        json: bool,
    },
    /// Looks at every state of three nodes and two tasks in which some things go wrong, in every order
    Model {
        /// Most faults on one path
        #[arg(long, default_value_t = 2)]
        faults: usize,
        /// Most states that are looked at
        #[arg(long, default_value_t = 20_000_000)]
        states: usize,
        /// A deliberate mistake to make, by the name that `mutants` prints
        #[arg(long, value_parser = mutant)]
        mutant: Option<crdt::mutant::Mutant>,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// Makes a failing run smaller, and prints it as a scenario
    Reduce(RunArgs),
    /// Plays back what `v6 debug record` wrote of a real node, to the same state
    Replay {
        /// The file
        file: std::path::PathBuf,
        /// Print what goes into each step and what comes out
        #[arg(long)]
        show: bool,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// Runs a scenario that `reduce` printed
    Scenario {
        /// Its file
        file: std::path::PathBuf,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Args)]
struct RunArgs {
    /// Members of the mesh
    #[arg(long, default_value_t = 20)]
    nodes: u32,
    /// Jobs that are submitted
    #[arg(long, default_value_t = 200)]
    jobs: u32,
    /// Virtual hours over which they are submitted and faults come [default: as many as fit the jobs]
    #[arg(long)]
    hours: Option<f64>,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 1, value_parser = simulations::seed)]
    seed: u64,
    /// Faults that may be drawn: all, none, or a list of names
    #[arg(long, default_value = "none")]
    faults: String,
    /// A deliberate mistake to make, by the name that `mutants` prints
    #[arg(long, value_parser = mutant)]
    mutant: Option<crdt::mutant::Mutant>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SweepArgs {
    /// Seeds, as A..B
    #[arg(long)]
    seeds: String,
    /// Members of the mesh
    #[arg(long, default_value_t = 6)]
    nodes: u32,
    /// Jobs of each run
    #[arg(long, default_value_t = 30)]
    jobs: u32,
    /// Faults that may be drawn: all, none, or a list of names
    #[arg(long, default_value = "all")]
    faults: String,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

impl RunArgs {
    fn wish(&self) -> anyhow::Result<Wish> {
        let Self { nodes, jobs, hours, seed, .. } = *self;
        check_counts(nodes, jobs)?;
        if let Some(hours) = hours
            && !(hours > 0.0 && hours <= 10_000.0)
        {
            bail!("--hours {hours}: a run takes more than none and at most 10000 virtual hours");
        }
        let faults = Fault::parse_list(&self.faults).map_err(anyhow::Error::msg)?;
        Ok(Wish { seed, nodes, jobs, hours, faults })
    }
}

fn check_counts(nodes: u32, jobs: u32) -> anyhow::Result<()> {
    if nodes == 0 || nodes > NODES_MAX {
        bail!("--nodes {nodes}: a mesh has 1 to {NODES_MAX} nodes");
    }
    if jobs > JOBS_MAX {
        bail!("--jobs {jobs}: a run has at most {JOBS_MAX} jobs");
    }
    Ok(())
}

fn mutant(name: &str) -> Result<crdt::mutant::Mutant, String> {
    let all = crdt::mutant::Mutant::ALL;
    let found = all.into_iter().find(|mutant| format!("{mutant:?}") == name);
    found.ok_or_else(|| format!("one of {}", all.map(|mutant| format!("{mutant:?}")).join(", ")))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match carry_out(cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("simulations: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Run(args) => {
            crdt::mutant::make(args.mutant);
            let report = simulations::run_last(Plan::draw(&args.wish()?));
            show(&report, args.json)
        }
        Command::Sweep(args) => sweep(&args),
        Command::Mutants { seeds, json } => mutants(seeds, json),
        Command::Reduce(args) => reduce(&args),
        Command::Replay { file, show, json } => replay(&file, show, json),
        Command::Model { faults, states, mutant, json } => model(faults, states, mutant, json),
        Command::Scenario { file, json } => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let plan: Plan = serde_json::from_str(&text)
                .with_context(|| format!("{} is no scenario; `simulations reduce` prints one", file.display()))?;
            plan.check().map_err(|why| anyhow::anyhow!("{} cannot be run: {why}", file.display()))?;
            show(&simulations::run(plan), json)
        }
    }
}

fn replay(file: &std::path::Path, show: bool, json: bool) -> anyhow::Result<bool> {
    let replayed = simulations::replay(file, |number, played| {
        if show {
            let now = played.step.now;
            eprintln!("step {number} at {} us, {} ms of the wall clock", now.mono.0, now.wall_ms);
            for input in &played.step.inputs {
                eprintln!("  in   {input:?}");
            }
            for effect in &played.effects {
                eprintln!("  out  {effect:?}");
            }
        }
    })?;
    if json {
        println!("{}", serde_json::to_string(&replayed)?);
    } else {
        println!(
            "node {}: {} steps with {} inputs in {} ms; state {}",
            &replayed.node[..8],
            replayed.steps,
            replayed.inputs,
            replayed.duration_ms,
            replayed.state_hash
        );
        if !replayed.complete {
            println!("the recording was cut off: what came later is not in it");
        }
        if let Some(step) = replayed.diverged_at {
            println!("step {step} came to something else than was recorded: another version, or a mistake");
        }
    }
    Ok(replayed.diverged_at.is_none())
}

fn show(report: &Report, json: bool) -> anyhow::Result<bool> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!(
            "seed {}: {} nodes, {} jobs, {} ms of virtual time, {} events, trace {}",
            report.seed,
            report.nodes,
            report.jobs,
            report.virtual_ms,
            report.events,
            &report.trace_hash[..16]
        );
        println!(
            "acknowledged {}, lost {}, finished {}; {} of {} claims collided; started after {:.1} ms (p99 {:.1} ms)",
            report.acknowledged,
            report.lost,
            report.finished,
            report.collisions,
            report.claims,
            report.placement_ms.p50,
            report.placement_ms.p99
        );
        println!(
            "a bystander receives {:.0} bytes in {:.2} messages per job",
            report.bystander.bytes_per_job, report.bystander.messages_per_job
        );
        for found in &report.violations {
            println!("violated at {} ms: {}: {}", found.step, found.invariant, found.detail);
        }
    }
    Ok(report.violations.is_empty())
}

fn sweep(args: &SweepArgs) -> anyhow::Result<bool> {
    check_counts(args.nodes, args.jobs)?;
    let range = args.seeds.split_once("..").and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
    let Some((from, to)) = range.filter(|(a, b)| a < b) else {
        bail!("--seeds {}: give a range of numbers, as 0..200, the first below the second", args.seeds);
    };
    let faults = Fault::parse_list(&args.faults).map_err(anyhow::Error::msg)?;
    let wish = Wish { seed: 0, nodes: args.nodes, jobs: args.jobs, hours: None, faults };
    let failed = simulations::sweep(&wish, from..to, |report| {
        for found in &report.violations {
            eprintln!("seed {} at {} ms: {}: {}", report.seed, found.step, found.invariant, found.detail);
        }
    });
    if args.json {
        println!("{}", serde_json::json!({"seeds": to - from, "failed": failed}));
    } else {
        println!("{} seeds, {} failed", to - from, failed.len());
    }
    Ok(failed.is_empty())
}

fn mutants(seeds: u64, json: bool) -> anyhow::Result<bool> {
    let found = simulations::mutants(seeds);
    if json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        for mutant in &found {
            let by = mutant.found_by_seed.map_or("SURVIVED".into(), |seed| format!("found by seed {seed}"));
            println!("{:24} {:22} {by}", mutant.invariant, mutant.mutant);
        }
    }
    Ok(found.iter().all(|mutant| mutant.found_by_seed.is_some()))
}

fn model(faults: usize, states: usize, mutant: Option<crdt::mutant::Mutant>, json: bool) -> anyhow::Result<bool> {
    let checked = simulations::check_model(faults, states, mutant);
    if json {
        println!("{}", serde_json::to_string(&checked)?);
    } else {
        let all = if checked.complete { "all states" } else { "not all states" };
        println!("{} states, {} steps deep: {all} with at most {faults} faults", checked.states, checked.depth);
        for (name, steps) in &checked.broken {
            println!("broken: {name}");
            for step in steps {
                println!("  {step}");
            }
        }
    }
    Ok(checked.broken.is_empty())
}

fn reduce(args: &RunArgs) -> anyhow::Result<bool> {
    crdt::mutant::make(args.mutant);
    let plan = Plan::draw(&args.wish()?);
    let reduced = simulations::reduce(plan, |plan, tries| {
        eprintln!("{tries} runs: {} nodes, {} jobs, {} faults", plan.nodes, plan.submits.len(), plan.steps.len());
    });
    let Some(plan) = reduced else {
        bail!("seed {} breaks no invariant: there is nothing to reduce", args.seed);
    };
    println!("{}", serde_json::to_string_pretty(&plan)?);
    Ok(false)
}
