//! `v6 get`: a job's artifacts into a directory, and never out of it.
//!
//! Paths come from another PC and are not trusted: no `..`, nothing absolute, no way through a symlink that lies in the
//! directory. Each file is written beside its place and renamed when its hash is right.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use crdt::ids::BlobHash;
use futures::StreamExt;
use serde::Serialize;
use web_gateway::api::{ArtifactView, JobView};

use super::{output, values};
use crate::blobs::BlobNamer;
use crate::client::{Client, percent_encode};

/// Fetch a job's artifacts.
///
/// Those of the accepted attempt, else of the newest attempt that has any; also while the job runs. They are written to
/// DIR/PATH, of an array to DIR/INDEX/PATH.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  v6 get 3f2a           into this directory\n  v6 get 3f2a results")]
pub(super) struct GetArgs {
    /// The job, or the beginning of its id
    #[arg(value_parser = values::id)]
    id: String,
    /// Where to
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Written {
    path: String,
    blob: String,
    size: u64,
    task: u32,
    attempt: u32,
}

pub(super) async fn main(args: GetArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let id = percent_encode(&args.id);
    let job: JobView = client.get(&format!("/v1/jobs/{id}?tasks_max=1")).await?;
    let artifacts: Vec<ArtifactView> = client.get(&format!("/v1/jobs/{}/artifacts", job.id)).await?;
    fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    let mut written = Vec::new();
    for artifact in &artifacts {
        let hash: BlobHash = artifact.blob.parse().context("the node's answer is not understood")?;
        let mut parts = relative(artifact)?;
        if job.array || job.tasks_total > 1 {
            parts.insert(0, artifact.task.to_string().into());
        }
        let target = place(&args.dir, &parts)?;
        let size = write_file(client, &hash, &target, artifact.executable).await?;
        let row = Written {
            path: target.display().to_string(),
            blob: artifact.blob.clone(),
            size,
            task: artifact.task,
            attempt: artifact.attempt,
        };
        if !args.json {
            output::say(&format!("{}  {}", output::shown(&row.path), output::size(row.size)));
        }
        written.push(row);
    }
    if args.json {
        output::json(&written)?;
    } else if written.is_empty() {
        let (id, state) = (&job.id, job.state.as_str());
        output::complain(&match &job.sealed {
            Some(sealed) => format!("the job {id} was sealed {}: its files are no longer kept", output::ago(sealed)),
            None => format!("the job {id} has no artifacts (state {state}): name them with --output"),
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// The components of an artifact's path, all of them harmless names.
fn relative(artifact: &ArtifactView) -> anyhow::Result<Vec<std::ffi::OsString>> {
    let bytes = match &artifact.path_base64 {
        Some(text) => data_encoding::BASE64.decode(text.as_bytes()).context("the node's answer is not understood")?,
        None => artifact.path.clone().into_bytes(),
    };
    let refuse = |why: &str| format!("the artifact {:?} is refused: {why}", artifact.path);
    let mut parts = Vec::new();
    for part in bytes.split(|byte| *byte == b'/') {
        match part {
            b"" => bail!(refuse("its path is absolute or has an empty part")),
            b"." | b".." => bail!(refuse("its path has a part . or ..")),
            part if part.contains(&0) => bail!(refuse("its path has a NUL byte")),
            part => parts.push(component(part).with_context(|| refuse("this system cannot have such a name"))?),
        }
    }
    Ok(parts)
}

#[cfg(unix)]
fn component(part: &[u8]) -> Option<std::ffi::OsString> {
    Some(std::os::unix::ffi::OsStringExt::from_vec(part.to_vec()))
}

#[cfg(windows)]
fn component(part: &[u8]) -> Option<std::ffi::OsString> {
    let name = std::str::from_utf8(part).ok()?;
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || (stem.len() == 4
            && (stem.starts_with("COM") || stem.starts_with("LPT"))
            && stem.ends_with(|c: char| c.is_ascii_digit()));
    let bad = |c: char| c.is_control() || "\\:<>\"|?*".contains(c);
    (!device && !name.contains(bad) && !name.ends_with(['.', ' '])).then(|| name.into())
}

/// Makes the directories that lead to a file and returns its path. Only the root itself may be a symlink.
fn place(root: &Path, parts: &[std::ffi::OsString]) -> anyhow::Result<PathBuf> {
    let mut path = root.to_owned();
    for (depth, part) in parts.iter().enumerate() {
        path.push(part);
        let last = depth + 1 == parts.len();
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_symlink() => {
                bail!("{} is a symbolic link: nothing is written through it; move it away", path.display())
            }
            Ok(found) if last && found.is_dir() => bail!("{} is a directory: move it away", path.display()),
            Ok(found) if !last && !found.is_dir() => bail!("{} is no directory: move it away", path.display()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if !last {
                    fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
                }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        }
    }
    Ok(path)
}

/// Fetches a blob into a file, by way of a temporary file beside it. Returns its size in bytes.
pub(super) async fn write_file(
    client: &Client,
    hash: &BlobHash,
    target: &Path,
    executable: bool,
) -> anyhow::Result<u64> {
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let named = || format!("cannot write {}", target.display());
    let (temporary, mut file) = temporary(directory, executable).with_context(named)?;
    let size = copy(client, hash, |bytes| file.write_all(bytes).with_context(named)).await?;
    drop(file);
    temporary.rename(target).with_context(named)?;
    Ok(size)
}

/// A file that is removed unless it has got its name.
struct Temporary(Option<PathBuf>);

impl Temporary {
    fn rename(mut self, target: &Path) -> std::io::Result<()> {
        if let Some(path) = &self.0 {
            fs::rename(path, target)?;
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Created anew and with the mode that the user's umask leaves of it.
fn temporary(directory: &Path, executable: bool) -> std::io::Result<(Temporary, File)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if executable { 0o777 } else { 0o666 });
    #[cfg(not(unix))]
    let _ = executable;
    let mut tries = 0;
    loop {
        let mut noise = [0; 8];
        getrandom::fill(&mut noise).map_err(std::io::Error::other)?;
        let path = directory.join(format!(".v6-get-{}", data_encoding::HEXLOWER.encode(&noise)));
        match options.open(&path) {
            Ok(file) => return Ok((Temporary(Some(path)), file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && tries < 10 => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Hands a blob's bytes on and checks their hash at the end. Returns their number.
pub(super) async fn copy(
    client: &Client,
    hash: &BlobHash,
    mut write: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut stream = client.stream(&format!("/v1/blobs/{hash}")).await?;
    let mut namer = BlobNamer::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        namer.update(&chunk);
        write(&chunk)?;
    }
    let blob = namer.finish();
    anyhow::ensure!(blob.hash == *hash, "the bytes of blob {hash} are not the right ones: try again");
    Ok(blob.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(path: &str) -> ArtifactView {
        ArtifactView {
            path: path.into(),
            path_base64: None,
            blob: String::new(),
            size: 0,
            executable: false,
            task: 0,
            attempt: 1,
        }
    }

    #[test]
    fn a_path_that_leaves_the_directory_is_refused() {
        for path in ["../x", "/etc/passwd", "a/../../x", "a//b", "", "a/.", "x\0y"] {
            assert!(relative(&artifact(path)).is_err(), "{path:?}");
        }
        assert_eq!(relative(&artifact("a/ملف.txt")).expect("a path").len(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_symlink() {
        let root = tempfile::tempdir().expect("a directory");
        let outside = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).expect("a link");
        let parts: Vec<std::ffi::OsString> = vec!["link".into(), "x".into()];
        assert!(place(root.path(), &parts).is_err());
        assert!(place(root.path(), &parts[..1]).is_err());
        assert!(place(root.path(), &["a".into(), "b".into(), "c".into()]).is_ok());
        assert!(root.path().join("a/b").is_dir());
    }
}
