//! The CLI as scripts meet it: the real binary against a small node over a real socket.

#[path = "../../web-gateway/tests/support/fake_node.rs"]
mod fake_node;

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fake_node::{BINARY, COOKIE, FakeNode, TOKEN};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use web_gateway::{ServerConfig, ServerHandle, serve};

struct Fixture {
    node: Arc<FakeNode>,
    data: TempDir,
    _server: ServerHandle,
}

struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ended {
    fn code(&self) -> i32 {
        self.status.code().expect("an exit code")
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stderr))
    }

    fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("text")
    }
}

fn command(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_v6"));
    command.args(args).env("V6_DATA_DIR", data).env_remove("NO_COLOR").kill_on_drop(true).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn end(mut command: Command) -> Ended {
    let output = tokio::time::timeout(Duration::from_secs(30), command.output()).await.expect("an end in time");
    let output = output.expect("the binary starts");
    Ended { status: output.status, stdout: output.stdout, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
}

impl Fixture {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let node = Arc::new(FakeNode::default());
        let config = ServerConfig { token: TOKEN.into(), node: COOKIE.into(), ..ServerConfig::default() };
        let server = serve(listener, node.clone(), config).expect("a server");
        let data = tempfile::tempdir().expect("a directory");
        let api = format!("{{\"api\":\"http://{}\",\"pid\":1}}", server.address());
        std::fs::write(data.path().join("api.json"), api).expect("to write");
        std::fs::write(data.path().join("api.token"), format!("{TOKEN}\n")).expect("to write");
        Self { node, data, _server: server }
    }

    async fn v6(&self, args: &[&str]) -> Ended {
        end(command(self.data.path(), args)).await
    }

    async fn submit(&self, args: &[&str]) -> String {
        let mut all = vec!["run", "--detach", "--json", "--"];
        all.extend_from_slice(args);
        self.v6(&all).await.json()["job"].as_str().expect("an id").to_owned()
    }
}

#[tokio::test]
async fn without_a_node_a_command_says_how_to_start_one_and_ends_with_3() {
    let empty = tempfile::tempdir().expect("a directory");
    let ended = end(command(empty.path(), &["status"])).await;
    assert_eq!(ended.code(), 3);
    assert!(ended.stderr.contains("v6 up"), "{}", ended.stderr);
    std::fs::write(empty.path().join("api.json"), "{\"api\":\"http://127.0.0.1:1\",\"pid\":1}").expect("to write");
    std::fs::write(empty.path().join("api.token"), "x").expect("to write");
    assert_eq!(end(command(empty.path(), &["jobs", "--json"])).await.code(), 3);
    assert_eq!(end(command(empty.path(), &["run", "--", "true"])).await.code(), 125);
    assert_eq!(end(command(empty.path(), &["run", "--detach", "--", "true"])).await.code(), 3);
}

#[tokio::test]
async fn a_wrong_token_is_not_allowed() {
    let fixture = Fixture::start().await;
    std::fs::write(fixture.data.path().join("api.token"), "wrong").expect("to write");
    let ended = fixture.v6(&["status"]).await;
    assert_eq!(ended.code(), 4, "{}", ended.stderr);
    let fixture = Fixture::start().await;
    assert_eq!(fixture.v6(&["invite", "--role", "admin"]).await.code(), 4);
}

#[tokio::test]
async fn run_passes_every_byte_and_nothing_of_its_own() {
    let fixture = Fixture::start().await;
    let ended = fixture.v6(&["run", "--", "hello"]).await;
    assert_eq!((ended.code(), ended.stderr.as_str()), (0, "err\n"));
    assert_eq!(ended.stdout, [b"out\n", BINARY].concat());
}

#[tokio::test]
async fn run_ends_with_the_code_of_the_command() {
    let fixture = Fixture::start().await;
    for code in ["1", "7", "137"] {
        assert_eq!(fixture.v6(&["run", "--", "exit", code]).await.code().to_string(), code);
    }
    let array = fixture.v6(&["run", "--array", "2", "--", "array"]).await;
    assert_eq!((array.code(), array.text().as_str()), (7, "zero\none\n"));
    let skipped = fixture.v6(&["run", "--", "skipped"]).await;
    assert_eq!(skipped.code(), 125);
    assert!(skipped.stderr.contains("job 00ff failed"), "{}", skipped.stderr);
}

#[tokio::test]
async fn after_a_lost_attempt_one_line_and_the_whole_output_of_the_next() {
    let fixture = Fixture::start().await;
    let ended = fixture.v6(&["run", "--", "lost"]).await;
    assert_eq!((ended.code(), ended.text().as_str()), (0, "halfwhole\n"));
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("attempt 1 was lost"));
}

#[tokio::test]
async fn a_break_of_the_connection_loses_and_repeats_nothing() {
    let fixture = Fixture::start().await;
    let ended = fixture.v6(&["run", "--", "break"]).await;
    assert_eq!((ended.code(), ended.text().as_str()), (0, "first second\n"), "{}", ended.stderr);
}

#[cfg(unix)]
#[tokio::test]
async fn ctrl_c_cancels_the_job_and_ends_with_130() {
    let fixture = Fixture::start().await;
    let id_file = fixture.data.path().join("id");
    let mut child = command(fixture.data.path(), &["run", "--id-file", &id_file.display().to_string(), "--", "wait"])
        .spawn()
        .expect("the binary starts");
    while !id_file.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().expect("a pid")).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("to signal");
    let status = tokio::time::timeout(Duration::from_secs(10), child.wait()).await.expect("an end").expect("a status");
    assert_eq!(status.code(), Some(130));
    let id = std::fs::read_to_string(&id_file).expect("an id");
    assert_eq!(id.trim(), fixture.node.jobs.lock().expect("no poison")[0].0.id);
}

#[tokio::test]
async fn a_detached_run_is_acknowledged_with_its_warning() {
    let fixture = Fixture::start().await;
    let ended =
        fixture.v6(&["run", "--detach", "--json", "--label", "nobody", "--env", "A=b=c", "--", "x", "-y"]).await;
    assert_eq!(ended.code(), 0);
    let answer = ended.json();
    assert!(answer["job"].is_string() && answer["trace"].is_string() && answer["durable_on"] == 2);
    assert!(answer["warning"].is_string());
    let request = fixture.node.jobs.lock().expect("no poison")[0].1.clone();
    assert_eq!((request.command, request.env["A"].as_str()), (vec!["x".into(), "-y".into()], "b=c"));
}

#[tokio::test]
async fn what_is_not_built_yet_says_so_and_ends_with_2() {
    let fixture = Fixture::start().await;
    for args in [
        &["up", "--relay"][..],
        &["gateway", "--nats", "x"],
        &["restore", "--s3", "x"],
        &["service", "install"],
        &["delegate"],
    ] {
        let ended = fixture.v6(args).await;
        assert_eq!(ended.code(), 2, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("not built yet"), "{args:?}: {}", ended.stderr);
    }
    assert_eq!(fixture.v6(&["run"]).await.code(), 2);
    assert_eq!(fixture.v6(&["run", "--timeout", "soon", "--", "x"]).await.code(), 2);
    assert_eq!(fixture.v6(&["nonsense"]).await.code(), 2);
}

#[tokio::test]
async fn lists_are_whole_in_json_however_many_pages_they_take() {
    let fixture = Fixture::start().await;
    for _ in 0..5 {
        fixture.submit(&["hello"]).await;
    }
    let jobs = fixture.v6(&["jobs", "--json"]).await.json();
    assert_eq!(jobs.as_array().map(Vec::len), Some(5));
    for field in ["id", "state", "trace", "submitter", "owner", "created", "tasks", "done"] {
        assert!(jobs[0].get(field).is_some(), "{field}");
    }
    assert_eq!(fixture.v6(&["jobs", "--json", "--limit", "3"]).await.json().as_array().map(Vec::len), Some(3));
    assert!(fixture.v6(&["jobs", "--limit", "3"]).await.text().contains("and more"));
    let array = fixture.v6(&["run", "--array", "250", "--detach", "--json", "--", "x"]).await.json();
    let shown = fixture.v6(&["job", "show", array["job"].as_str().expect("an id"), "--json"]).await.json();
    assert_eq!(shown["tasks"].as_array().map(Vec::len), Some(250));
}

#[tokio::test]
async fn what_others_named_cannot_steer_the_terminal() {
    let fixture = Fixture::start().await;
    let peers = fixture.v6(&["peers"]).await.text();
    assert!(peers.contains("حاسوب") && !peers.contains('\x1b'), "{peers}");
    assert_eq!(fixture.v6(&["peers", "--json"]).await.json()[0]["name"], "حاسوب\u{1b}[31m");
    for args in [&["status"][..], &["members"], &["doc", "list"], &["feed", "list"], &["blob", "list"], &["blob", "gc"]]
    {
        assert_eq!(fixture.v6(args).await.code(), 0, "{args:?}");
    }
    assert_eq!(fixture.v6(&["status", "--json"]).await.json()["lease_ms"], 5_000);
}

#[tokio::test]
async fn checks_that_find_something_end_with_1() {
    let fixture = Fixture::start().await;
    let doctor = fixture.v6(&["doctor"]).await;
    assert_eq!(doctor.code(), 1);
    assert!(doctor.text().contains("free some space"));
    let feeds = fixture.v6(&["feed", "verify"]).await;
    assert_eq!((feeds.code(), feeds.text().contains("torn")), (1, true));
    assert_eq!(fixture.v6(&["job", "show", "ffff"]).await.code(), 1);
}

#[tokio::test]
async fn artifacts_come_home_and_none_leaves_the_directory() {
    let fixture = Fixture::start().await;
    let into = tempfile::tempdir().expect("a directory");
    let target = into.path().join("out").display().to_string();
    let job = fixture.submit(&["one", "a/b.txt", "ملف"]).await;
    let ended = fixture.v6(&["get", &job, &target]).await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    for path in ["a/b.txt", "ملف"] {
        assert_eq!(std::fs::read(into.path().join("out").join(path)).expect("a file"), b"an artifact");
    }
    let array = fixture.v6(&["run", "--array", "2", "--detach", "--json", "--", "array", "x", "x"]).await.json();
    assert_eq!(fixture.v6(&["get", array["job"].as_str().expect("an id"), &target]).await.code(), 0);
    assert!(into.path().join("out/1/x").is_file());
    let evil = fixture.submit(&["one", "../evil"]).await;
    let ended = fixture.v6(&["get", &evil, &target]).await;
    assert_eq!(ended.code(), 1);
    assert!(!into.path().join("evil").exists() && ended.stderr.contains("refused"), "{}", ended.stderr);
    let names: Vec<_> = std::fs::read_dir(&target).expect("a directory").flatten().map(|e| e.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".v6-get")), "{names:?}");
}

#[tokio::test]
async fn a_file_of_jobs_is_submitted_as_one() {
    let fixture = Fixture::start().await;
    let file = fixture.data.path().join("jobs.toml");
    std::fs::write(&file, "[[job]]\nname='t'\ncommand=['x']\nafter=['b']\n[[job]]\nname='b'\ncommand=['x']\n")
        .expect("to write");
    let answers = fixture.v6(&["submit", "--json", &file.display().to_string()]).await.json();
    assert_eq!((&answers[0]["name"], &answers[1]["name"]), (&"t".into(), &"b".into()));
    std::fs::write(&file, "[[job]]\ncommand=['x']\ntpyo=1\n").expect("to write");
    let ended = fixture.v6(&["submit", &file.display().to_string()]).await;
    assert_eq!(ended.code(), 2);
    assert!(ended.stderr.contains("tpyo"), "{}", ended.stderr);
    std::fs::write(&file, "[[job]]\ncommand=['x']\n").expect("to write");
    assert!(fixture.v6(&["submit", "--json", &file.display().to_string()]).await.json()["job"].is_string());
}

#[tokio::test]
async fn notes_and_blobs_go_there_and_back() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.v6(&["note", "edit", "00", "--text", "seen"]).await.code(), 0);
    assert_eq!(fixture.v6(&["note", "show", "00"]).await.text(), "seen");
    let mut editor = command(fixture.data.path(), &["note", "edit", "00", "--append"]);
    editor.stdin(Stdio::piped());
    let mut child = editor.spawn().expect("the binary starts");
    tokio::io::AsyncWriteExt::write_all(&mut child.stdin.take().expect("stdin"), b" twice").await.expect("to write");
    assert!(child.wait().await.expect("an end").success());
    assert_eq!(fixture.v6(&["note", "show", "00"]).await.text(), "seen twice");
    let file = fixture.data.path().join("big");
    std::fs::write(&file, vec![9; 3_000_000]).expect("to write");
    let added = fixture.v6(&["blob", "add", "--json", &file.display().to_string()]).await.json();
    let got = fixture.v6(&["blob", "get", added["blob"].as_str().expect("a hash")]).await;
    assert_eq!(got.stdout, vec![9; 3_000_000]);
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_run_without_a_panic() {
    let fixture = Fixture::start().await;
    let job = fixture.submit(&["hello"]).await;
    let mut child = command(fixture.data.path(), &["logs", &job]).spawn().expect("the binary starts");
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut stderr).await.expect("text");
    let status = child.wait().await.expect("an end");
    assert_eq!((status.code(), stderr.contains("panic")), (Some(141), false), "{stderr}");
}

#[tokio::test]
async fn help_completions_and_the_manual_need_no_node() {
    let empty = tempfile::tempdir().expect("a directory");
    let help = end(command(empty.path(), &["run", "--help"])).await;
    assert_eq!((help.code(), help.text().contains("Examples:")), (0, true));
    let shell = end(command(empty.path(), &["completions", "bash"])).await;
    assert!(shell.text().contains("_v6"));
    let man = end(command(empty.path(), &["man"])).await.text();
    assert!(man.contains(".TH") && man.contains("v6-run"), "{man}");
}

#[tokio::test]
async fn of_a_tree_only_what_the_node_does_not_hold_is_sent() {
    let fixture = Fixture::start().await;
    let tree = tempfile::tempdir().expect("a directory");
    for n in 0..300 {
        std::fs::write(tree.path().join(format!("ملف {n}")), format!("text {n}")).expect("to write");
    }
    std::fs::create_dir(tree.path().join("sub")).expect("a directory");
    std::fs::write(tree.path().join("sub/large"), vec![5; 2_000_000]).expect("to write");
    std::fs::write(tree.path().join(".gitignore"), "ignored\n").expect("to write");
    std::fs::write(tree.path().join("ignored"), "not wanted").expect("to write");
    let input = tree.path().display().to_string();
    let args = ["run", "--input", &input, "--detach", "--json", "--", "x"];
    assert_eq!(fixture.v6(&args).await.code(), 0);
    let first = fixture.node.blobs.lock().expect("no poison").len();
    assert_eq!(first, 300 + 1 + 1 + 1, "files, the large one, .gitignore and the manifest");
    std::fs::write(tree.path().join("sub/large"), vec![6; 2_000_000]).expect("to write");
    let uploads = fixture.node.uploads.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(fixture.v6(&args).await.code(), 0);
    assert_eq!(fixture.node.blobs.lock().expect("no poison").len(), first + 2);
    assert!(fixture.node.uploads.load(std::sync::atomic::Ordering::Relaxed) > uploads);
    let jobs = fixture.node.jobs.lock().expect("no poison");
    let manifest: crdt::ids::BlobHash = jobs[1].1.input.as_deref().expect("an input").parse().expect("a hash");
    assert!(fixture.node.blobs.lock().expect("no poison").contains_key(&manifest));
}

#[tokio::test]
async fn an_input_that_is_no_directory_is_named() {
    let fixture = Fixture::start().await;
    let ended = fixture.v6(&["run", "--input", "/no/such/place", "--", "x"]).await;
    assert_eq!(ended.code(), 2);
    assert!(ended.stderr.contains("/no/such/place"), "{}", ended.stderr);
}
