//! `table`: V6 beside its peers and beside itself as it grows, as a table and as pictures.
//!
//! What runs on this machine is measured by `v6 bench`, which takes turns with the peers; what needs more machines than there
//! are is taken from the simulator. Everything is written below one directory.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use plotters::prelude::*;
use serde_json::Value;
use simulations::{Plan, Wish};

/// Sizes of the simulated meshes.
const SIZES: [u32; 6] = [3, 10, 30, 100, 300, 1_000];
/// Jobs of each simulated run: ten seconds at 50 a second.
const JOBS: u32 = 500;
const JOBS_QUICK: u32 = 100;
/// Virtual time of the run without jobs.
const IDLE_HOURS: f64 = 0.05;
/// Size of the mesh of real nodes in the row `bystander` of `v6 bench`.
const REAL_NODES: u32 = 20;

/// Measures V6 beside its peers, and writes a table and pictures.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where the table and the pictures go
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
    /// The program to measure
    #[arg(long, value_name = "FILE", default_value = "target/release/v6")]
    v6: PathBuf,
    /// Python that may have the package hyperqueue
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
    /// Fewer repeats and smaller sizes: some minutes
    #[arg(long)]
    quick: bool,
    /// Only the simulated growth
    #[arg(long)]
    growth_only: bool,
}

/// What a mesh of one size costs.
struct Grown {
    nodes: u32,
    placement: (f64, f64),
    bytes: f64,
    messages: f64,
    /// What the same time costs without any job, per job of the run.
    idle_bytes: f64,
    /// Time of the processor per node and job, microseconds; an upper bound, with the simulation's own.
    cpu_us: f64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("table: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    let mut text = String::from("# V6 beside its peers\n\nMade by `make bench`");
    writeln!(text, "; {}\n", circumstances(args))?;
    let mut rows = Vec::new();
    if !args.growth_only {
        rows = measured(args)?;
        beside(&rows, &mut text)?;
        ratios(&args.out.join("beside.svg"), &rows)?;
    }
    let jobs = if args.quick { JOBS_QUICK } else { JOBS };
    let per_message_us = match real_bystander_us(&rows) {
        Some(real_us) => Some(real_us / grow(REAL_NODES, jobs)?.messages),
        None => None,
    };
    let grown = SIZES.into_iter().map(|nodes| grow(nodes, jobs)).collect::<anyhow::Result<Vec<Grown>>>()?;
    growth_table(&grown, per_message_us, &mut text)?;
    let placement = [
        ("median", grown.iter().map(|g| (g.nodes, g.placement.0)).collect()),
        ("99th percentile", grown.iter().map(|g| (g.nodes, g.placement.1)).collect()),
    ];
    curves(&args.out.join("placement.svg"), "from submitting to starting, ms", &placement)?;
    let bytes = [("a bystander", grown.iter().map(|g| (g.nodes, g.bytes)).collect())];
    curves(&args.out.join("bystander.svg"), "bytes received per job without a part in it", &bytes)?;
    let path = args.out.join("table.md");
    std::fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
    println!("{text}");
    println!("written to {}", args.out.display());
    Ok(())
}

/// The machine, the commit and the versions.
fn circumstances(args: &Args) -> String {
    let say = |program: &Path, args: &[&str]| {
        let ran = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
        let line = String::from_utf8_lossy(&ran.stdout).lines().next().map(str::to_owned)?;
        ran.status.success().then_some(line)
    };
    let cores = std::thread::available_parallelism().map_or(0, Into::into);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let commit = say(Path::new("git"), &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let hq = "from importlib.metadata import version; print(version('hyperqueue'))";
    let hq = say(&args.python, &["-c", hq]).unwrap_or_else(|| "not there".into());
    let peers = ["rsync", "syncthing", "xargs"].map(|peer| {
        let line = say(Path::new(peer), &["--version"]).unwrap_or_else(|| format!("{peer}: not there"));
        line.split_whitespace().take(4).collect::<Vec<_>>().join(" ")
    });
    format!(
        "{cores} cores ({}), commit {commit}, {}, HyperQueue {hq}, {}.{}",
        cpu.trim_start_matches([':', ' ', '\t']),
        say(&args.v6, &["--version"]).unwrap_or_else(|| "v6 of unknown version".into()),
        peers.join(", "),
        if args.quick { " With QUICK=1: fewer repeats and smaller sizes, which say less." } else { "" },
    )
}

/// The rows of `v6 bench`.
fn measured(args: &Args) -> anyhow::Result<Vec<Value>> {
    eprintln!("table: v6 bench, which takes {}", if args.quick { "some minutes" } else { "half an hour" });
    let mut command = Command::new(&args.v6);
    command.args(["bench", "--json", "--verbose", "--python"]).arg(&args.python);
    if args.quick {
        command.arg("--quick");
    }
    let ran = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let ran = ran.with_context(|| format!("{} does not run: build it, or name it with --v6", args.v6.display()))?;
    // 1: a bar is not met, which the table says.
    ensure!(matches!(ran.status.code(), Some(0 | 1)), "v6 bench ended with {}", ran.status);
    let report: Value = serde_json::from_slice(&ran.stdout).context("what v6 bench printed is no JSON")?;
    Ok(report["rows"].as_array().cloned().unwrap_or_default())
}

fn beside(rows: &[Value], text: &mut String) -> anyhow::Result<()> {
    writeln!(text, "| row | measured | bar | verdict | beside it |\n| --- | --- | --- | --- | --- |")?;
    for row in rows {
        let words = |name: &str| row[name].as_str().unwrap_or_default().replace('|', "\\|");
        let peers: Vec<&str> = row["peers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let verdict = row["met"].as_bool().map_or("-", |met| if met { "met" } else { "not met" });
        let (name, measured, bar) = (words("name"), words("measured"), words("bar"));
        writeln!(text, "| {name} | {measured} | {bar} | {verdict} | {} |", peers.join("; "))?;
    }
    writeln!(text, "\n![times as large as the peer's](beside.svg)\n")?;
    Ok(())
}

/// Processor time that a job costs a real node without a part in it, what it costs without any job counted in, microseconds.
fn real_bystander_us(rows: &[Value]) -> Option<f64> {
    let row = rows.iter().find(|row| row["name"] == "bystander")?;
    let median = |name: &str| {
        let pair = row["numbers"].as_array()?.iter().find(|pair| pair[0] == name)?;
        pair[1]["median"].as_f64()
    };
    Some((median("cpu_ms_per_job")? + median("idle_cpu_ms_per_job")?) * 1e3)
}

fn grow(nodes: u32, jobs: u32) -> anyhow::Result<Grown> {
    eprintln!("table: {nodes} simulated nodes");
    let wish = Wish { seed: 1, nodes, jobs, hours: None, faults: Vec::new() };
    let (begun, before) = (Instant::now(), cpu_us());
    let report = simulations::run(Plan::draw(&wish));
    ensure!(report.violations.is_empty(), "{nodes} nodes: {:?}", report.violations);
    let cpu = cpu_us().map_or(f64::NAN, |now| now - before.unwrap_or(0.0));
    let quiet = simulations::run(Plan::draw(&Wish { jobs: 0, hours: Some(IDLE_HOURS), ..wish }));
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of a run")]
    let per_ms = quiet.bystander.bytes_per_job / quiet.virtual_ms.max(1) as f64;
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of a run")]
    let idle_bytes = per_ms * report.virtual_ms as f64 / f64::from(jobs);
    eprintln!("table: {nodes} nodes took {:.1} s", begun.elapsed().as_secs_f64());
    Ok(Grown {
        nodes,
        placement: (report.placement_ms.p50, report.placement_ms.p99),
        bytes: report.bystander.bytes_per_job,
        messages: report.bystander.messages_per_job,
        idle_bytes,
        cpu_us: cpu / f64::from(nodes) / f64::from(jobs),
    })
}

/// Time of the processor that this process took, microseconds.
#[cfg(target_os = "linux")]
#[allow(clippy::cast_precision_loss, reason = "microseconds of a process")]
fn cpu_us() -> Option<f64> {
    let taken = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(taken.tv_sec as f64 * 1e6 + taken.tv_nsec as f64 / 1e3)
}

#[cfg(not(target_os = "linux"))]
fn cpu_us() -> Option<f64> {
    None
}

fn growth_table(grown: &[Grown], per_message_us: Option<f64>, text: &mut String) -> anyhow::Result<()> {
    writeln!(text, "## As the mesh grows\nSimulated, LAN latencies, no-op jobs at 50 a second.\n")?;
    writeln!(
        text,
        "| nodes | placement median, p99 | bystander per job | beyond an idle mesh | its processor, estimated | simulator's processor |"
    )?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- |")?;
    for g in grown {
        let real = per_message_us.map_or_else(|| "-".to_owned(), |us| format!("{:.2} ms", us * g.messages / 1e3));
        writeln!(
            text,
            "| {} | {:.1} ms, {:.1} ms | {:.0} B in {:.1} messages | {:.0} B | {real} | {:.0} µs |",
            g.nodes,
            g.placement.0,
            g.placement.1,
            g.bytes,
            g.messages,
            (g.bytes - g.idle_bytes).max(0.0),
            g.cpu_us
        )?;
    }
    writeln!(text, "\n![placement](placement.svg) ![bystander](bystander.svg)\n")?;
    let message = per_message_us.map_or_else(|| "not measured".to_owned(), |us| format!("{us:.0} µs"));
    writeln!(
        text,
        "The bystander's bytes and messages hold copies by gossip and all idle traffic of the time; beyond an idle mesh: less\n\
         what {IDLE_HOURS} virtual hours without a job bring, in the same time. Estimated: the\n\
         messages, each at what one costs a real node (row `bystander`, all of its processor's time over the messages of\n\
         {REAL_NODES} simulated nodes: {message}). The simulator's processor: all of its time per node and job."
    )?;
    Ok(())
}

/// Lines over the number of nodes, both axes logarithmic.
fn curves(path: &Path, what: &str, lines: &[(&str, Vec<(u32, f64)>)]) -> anyhow::Result<()> {
    let values = || lines.iter().flat_map(|(_, line)| line.iter().map(|(_, value)| *value));
    let (low, high) = (values().fold(f64::MAX, f64::min).max(0.1), values().fold(0.0, f64::max));
    let root = SVGBackend::new(path, (640, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(what, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d((SIZES[0]..SIZES[SIZES.len() - 1]).log_scale(), (low / 2.0..high * 2.0).log_scale())?;
    chart.configure_mesh().x_desc("nodes").light_line_style(WHITE).draw()?;
    for (n, (name, line)) in lines.iter().enumerate() {
        let colour = Palette99::pick(n).to_rgba();
        let points = line.iter().map(|(nodes, value)| (*nodes, value.max(low)));
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

/// Of each row with a time of V6 and of peers: V6's, in times of each peer's.
fn ratios_of(rows: &[Value]) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    for row in rows {
        let numbers: Vec<(&str, f64)> = row["numbers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|pair| Some((pair[0].as_str()?.strip_suffix("_s")?, pair[1]["median"].as_f64()?)))
            .collect();
        let Some((_, ours)) = numbers.iter().find(|(name, _)| *name == "v6") else { continue };
        let peers = numbers.iter().filter(|(name, median)| *name != "v6" && *median > 0.0);
        let row = row["name"].as_str().unwrap_or_default();
        found.extend(peers.map(|(peer, theirs)| (format!("{row} / {peer}"), ours / theirs)));
    }
    found
}

/// Bars: how many times as large V6's value is as the peer's.
fn ratios(path: &Path, rows: &[Value]) -> anyhow::Result<()> {
    let ratios = ratios_of(rows);
    let count = i32::try_from(ratios.len())?.max(1);
    let high = ratios.iter().map(|(_, ratio)| *ratio).fold(1.0, f64::max) * 1.1;
    let root = SVGBackend::new(path, (640, 80 + 40 * u32::try_from(count)?)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("V6's time, as times of the peer's", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(140)
        .build_cartesian_2d(0.0..high, (0..count).into_segmented())?;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(n) => {
            usize::try_from(*n).ok().and_then(|n| ratios.get(n)).map_or_else(String::new, |(name, _)| name.clone())
        }
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart.configure_mesh().disable_y_mesh().light_line_style(WHITE).y_label_formatter(&name).draw()?;
    chart.draw_series(ratios.iter().zip(0..).map(|((_, ratio), n)| {
        let corners = [(0.0, SegmentValue::Exact(n)), (*ratio, SegmentValue::Exact(n + 1))];
        let mut bar = Rectangle::new(corners, Palette99::pick(0).filled());
        bar.set_margin(6, 6, 0, 0);
        bar
    }))?;
    root.present()?;
    Ok(())
}
