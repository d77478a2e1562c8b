//! `v6 submit`: jobs and graphs of jobs from a TOML file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use hyper::Method;
use serde::Deserialize;
use web_gateway::api::{JobRequest, Submitted};

use super::{UsageError, output, run, values};
use crate::client::Client;

/// Most bytes of a job file.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Submit the jobs of a TOML file.
///
/// All are accepted or none. A job waits for others of the file by their names, for jobs submitted before by their ids.
#[derive(Debug, Args)]
#[command(
    after_help = "A file:\n  [[job]]\n  name = \"build\"\n  command = [\"cargo\", \"build\"]\n  input = \".\"                 # relative to the file\n  outputs = [\"target/debug/app\"]\n\n  [[job]]\n  name = \"test\"\n  command = [\"cargo\", \"test\"]\n  input = \".\"\n  after = [\"build\"]\n  timeout = \"20m\"\n  env = { RUST_BACKTRACE = \"1\" }\n\nFurther keys: labels, retries, array, key, priority, value, max_price, cores, memory, os, region,\nnetwork, idea, no_ignore."
)]
pub(super) struct SubmitArgs {
    /// The file
    file: PathBuf,
    /// Print the acknowledgements as JSON: a list if the file has several jobs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobFile {
    job: Vec<FileJob>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileJob {
    command: Vec<String>,
    name: Option<String>,
    input: Option<PathBuf>,
    #[serde(default)]
    no_ignore: bool,
    #[serde(default, alias = "output")]
    outputs: Vec<String>,
    #[serde(default, alias = "label")]
    labels: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    timeout: Option<Quantity>,
    #[serde(default)]
    retries: u32,
    #[serde(default)]
    at_most_once: bool,
    array: Option<u32>,
    #[serde(default)]
    after: Vec<String>,
    key: Option<String>,
    #[serde(default)]
    priority: i32,
    value: Option<u64>,
    max_price: Option<u64>,
    cores: Option<u32>,
    memory: Option<Quantity>,
    os: Option<String>,
    region: Option<String>,
    #[serde(default)]
    network: bool,
    idea: Option<String>,
}

/// A number, or a text with a unit.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Quantity {
    Number(u64),
    Text(String),
}

impl Quantity {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

pub(super) async fn main(args: SubmitArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let requests = read(&args.file)?;
    let directory = args.file.parent().unwrap_or(Path::new(".")).to_owned();
    let mut ready = Vec::with_capacity(requests.len());
    let mut sent: BTreeMap<(PathBuf, bool), String> = BTreeMap::new();
    for (mut request, input) in requests {
        if let Some((input, no_ignore)) = input {
            let key = (directory.join(input), no_ignore);
            let tree = match sent.get(&key) {
                Some(tree) => tree.clone(),
                None => {
                    let tree = run::send_input(client, &key.0, no_ignore).await?;
                    sent.insert(key, tree.clone());
                    tree
                }
            };
            request.input = Some(tree);
        }
        ready.push(request);
    }
    let answers: Vec<Submitted> = client.send_json(Method::POST, "/v1/jobs", &ready).await?;
    show(&args, &answers)?;
    Ok(ExitCode::SUCCESS)
}

fn show(args: &SubmitArgs, answers: &[Submitted]) -> anyhow::Result<()> {
    if args.json {
        return match answers {
            [only] => output::json(only),
            several => output::json(&several),
        };
    }
    let mut table = output::Table::new(&["JOB", "NAME", "DURABLE ON"]);
    for answer in answers {
        table.row(&[&answer.job, answer.name.as_deref().unwrap_or(""), &answer.durable_on.to_string()]);
    }
    table.print();
    for answer in answers {
        if let Some(warning) = &answer.warning {
            output::complain(&format!("warning: job {}: {warning}", output::short(&answer.job)));
        }
    }
    Ok(())
}

type Wanted = (JobRequest, Option<(PathBuf, bool)>);

fn read(file: &Path) -> anyhow::Result<Vec<Wanted>> {
    let named = || format!("cannot read {}", file.display());
    let size = std::fs::metadata(file).with_context(named)?.len();
    if size > FILE_BYTES_MAX {
        return Err(UsageError(format!("{} has {size} bytes, {FILE_BYTES_MAX} is the most", file.display())).into());
    }
    let text = std::fs::read_to_string(file).with_context(named)?;
    parse(&text).map_err(|error| UsageError(format!("{}: {error}", file.display())).into())
}

fn parse(text: &str) -> Result<Vec<Wanted>, String> {
    let parsed: JobFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let names: BTreeSet<String> = parsed.job.iter().filter_map(|job| job.name.clone()).collect();
    parsed.job.into_iter().enumerate().map(|(at, job)| convert(at, job, &names)).collect()
}

fn convert(at: usize, job: FileJob, names: &BTreeSet<String>) -> Result<Wanted, String> {
    let title = job.name.clone().unwrap_or_else(|| format!("job {}", at + 1));
    let timeout_ms = job.timeout.map(|timeout| values::duration_ms(&timeout.text())).transpose();
    let memory_bytes = job.memory.map(|memory| values::bytes(&memory.text())).transpose();
    let after =
        job.after.into_iter().map(|name| if names.contains(&name) { format!("@{name}") } else { name }).collect();
    for glob in &job.outputs {
        globset::Glob::new(glob).map_err(|error| format!("{title}: outputs: {error}"))?;
    }
    let request = JobRequest {
        command: job.command,
        input: None,
        outputs: job.outputs,
        labels: job.labels,
        env: job.env,
        timeout_ms: timeout_ms.map_err(|error| format!("{title}: timeout: {error}"))?,
        retries: job.retries,
        at_most_once: job.at_most_once,
        array: job.array,
        after,
        key: job.key,
        priority: job.priority,
        value_micros: job.value,
        max_price_micros_per_hour: job.max_price,
        cores: job.cores,
        memory_bytes: memory_bytes.map_err(|error| format!("{title}: memory: {error}"))?,
        os: job.os,
        region: job.region,
        network: job.network,
        name: job.name,
        idea: job.idea,
    };
    Ok((request, job.input.map(|input| (input, job.no_ignore))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_own_jobs_and_those_of_others() {
        let text = "[[job]]\nname='a'\ncommand=['true']\n[[job]]\ncommand=['true']\nafter=['a','00ff']\ntimeout='2m'\nmemory='1GiB'\n";
        let jobs = parse(text).expect("a job file");
        assert_eq!(jobs[1].0.after, ["@a", "00ff"]);
        assert_eq!(jobs[1].0.timeout_ms, Some(120_000));
        assert_eq!(jobs[1].0.memory_bytes, Some(1 << 30));
    }

    #[test]
    fn a_mistake_in_a_file_is_named() {
        let error = parse("[[job]]\ncommand=['true']\ntimeuot='2m'\n").expect_err("an unknown key");
        assert!(error.contains("timeuot"), "{error}");
        let error = parse("[[job]]\nname='x'\ncommand=['true']\ntimeout='soon'\n").expect_err("no duration");
        assert!(error.contains("x: timeout"), "{error}");
    }
}
