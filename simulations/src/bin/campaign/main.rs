//! `campaign`: real nodes on hosts of their own, with steady load, while everything goes wrong that can.
//!
//! What was acknowledged and what was read is written down, and compared in the end with what there is.

#[cfg(target_os = "linux")]
mod run;

use std::process::ExitCode;

/// Runs real nodes under faults and checks that nothing acknowledged was lost. Needs Linux and root, for network namespaces.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "Example:\n  campaign --nodes 8 --seconds 90 --seed 1 --json\n\nFaults: `--faults list` names them. Exit code 1: something was lost, or did not agree in the end."
)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "it runs on Linux only"))]
struct Args {
    /// Nodes
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=50))]
    nodes: u32,
    /// Seconds of load and faults
    #[arg(long, default_value_t = 90)]
    seconds: u64,
    /// Seed of what is drawn
    #[arg(long, default_value_t = 1, value_parser = simulations::seed)]
    seed: u64,
    /// Faults: all, none, list, or a list of names
    #[arg(long, default_value = "all")]
    faults: String,
    /// People who submit at the same time
    #[arg(long, default_value_t = 3)]
    people: u32,
    /// The program [default: the one beside this one, which cargo builds first where it runs this]
    #[arg(long, value_name = "FILE")]
    v6: Option<std::path::PathBuf>,
    /// Keep the nodes' directories
    #[arg(long)]
    keep: bool,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = <Args as clap::Parser>::parse();
    #[cfg(target_os = "linux")]
    match run::campaign(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("campaign: {error:#}");
            ExitCode::from(2)
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = args;
        eprintln!("campaign: skipped: it needs the network namespaces of Linux");
        ExitCode::SUCCESS
    }
}
