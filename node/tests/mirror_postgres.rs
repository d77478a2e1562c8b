//! The mirror in a real PostgreSQL, that the test starts itself: it holds what the mesh holds, also after either side was killed.

#![cfg(target_os = "linux")]

#[path = "mesh_support/mod.rs"]
mod mesh_support;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mesh_support::Node;

const PATIENCE: Duration = Duration::from_secs(30);

/// A server on a free port with a directory of its own.
struct Server {
    bin: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    owner: Option<(u32, u32)>,
    child: Option<Child>,
}

fn id_of(option: &str) -> Option<u32> {
    let ran = Command::new("id").args([option, "postgres"]).output().ok()?;
    String::from_utf8_lossy(&ran.stdout).trim().parse().ok()
}

impl Server {
    /// `None` where PostgreSQL is not installed: then the test says so and ends.
    fn new() -> Option<Self> {
        let found = std::fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten().flatten();
        let bin = found.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
        let Some(bin) = bin else {
            println!("SKIPPED: no PostgreSQL here (Debian's package postgresql)");
            return None;
        };
        // It refuses to run as root.
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        let owner = is_root.then(|| Some((id_of("-u")?, id_of("-g")?))).flatten();
        let dir = tempfile::tempdir().expect("a directory");
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(dir.path(), Some(user), Some(group)).expect("its directory");
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let mut server = Self { bin, dir, port, owner, child: None };
        let data = server.data();
        let made = server
            .command("initdb")
            .args(["-U", "v6", "-A", "trust", "-E", "UTF8", "--no-sync", "-D"])
            .arg(&data)
            .output();
        let made = made.expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.start();
        Some(server)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir("/").stdin(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn start(&mut self) {
        let data = self.data();
        let mut command = self.command("postgres");
        command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-k"]).arg(self.dir.path());
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("postgres runs"));
        let begun = Instant::now();
        while self.try_sql("select 1").is_none() {
            assert!(begun.elapsed() < PATIENCE, "the server does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
            // Its helpers notice that it is gone.
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn url(&self) -> String {
        format!("postgres://v6@127.0.0.1:{}/postgres", self.port)
    }

    fn try_sql(&self, query: &str) -> Option<String> {
        let ran = self
            .command("psql")
            .args([&self.url(), "-AtX", "-v", "ON_ERROR_STOP=1", "-c", query])
            .output()
            .expect("psql runs");
        ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).trim().to_owned())
    }

    fn sql(&self, query: &str) -> String {
        self.try_sql(query).unwrap_or_else(|| panic!("{query}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn gateway(root: &Path, server: &Server) -> Node {
    Node::start_as(
        "gateway",
        &[("V6_POSTGRES", &server.url())],
        &root.join("alpha"),
        &["--slots", "2", "--name", "alpha"],
    )
}

fn mirror(node: &Node) -> serde_json::Value {
    node.json(&["status", "--json"])["mirrors"][0].clone()
}

fn caught_up(node: &Node) {
    node.wait("the mirror holds all", |node| {
        let mirror = mirror(node);
        mirror["pending"] == 0 && mirror["error"].is_null() && mirror["lag_ms"] == 0
    });
}

fn agrees(node: &Node, server: &Server) {
    caught_up(node);
    let checked = node.json(&["mirror", "verify", "--json"]);
    assert!(checked[0]["ok"] == true, "{checked}");
    let feeds = node.json(&["feed", "list", "--json"]);
    for feed in feeds.as_array().expect("feeds") {
        let author = feed["author"].as_str().expect("an author");
        let held = server.sql(&format!("select count(*) || ' ' || max(seq) from v6.bundles where author = '{author}'"));
        assert_eq!(held, format!("{0} {0}", feed["seq"]), "each bundle once");
    }
}

#[test]
fn the_mirror_holds_what_the_mesh_holds_also_after_either_was_killed() {
    let Some(mut server) = Server::new() else { return };
    let root = tempfile::tempdir().expect("a directory");
    let node = gateway(root.path(), &server);
    let idea = node.json(&["idea", "add", "خزّن أدوات البناء", "--body", "نص", "--json"])["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let ran = node.v6(&["run", "--idea", &idea, "--output", "out", "--", "sh", "-c", "echo x > out; exit 0"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let failed = node.json(&["run", "--detach", "--json", "--array", "3", "--", "sh", "-c", "exit $V6_TASK_ID"]);
    let failed = failed["job"].as_str().expect("a job").to_owned();
    node.wait("the array is over", |node| node.json(&["job", "show", &failed, "--json"])["state"] == "failed");
    agrees(&node, &server);
    assert_eq!(
        server.sql("select title || '|' || body || '|' || status from v6.ideas where kind = 'idea'"),
        "خزّن أدوات البناء|نص|open"
    );
    assert_eq!(server.sql(&format!("select state from v6.jobs where id = '{failed}'")), "failed");
    assert_eq!(
        server.sql(&format!(
            "select string_agg(index || ' ' || exit, ', ' order by index) from v6.attempts where job_id = '{failed}'"
        )),
        "0 0, 1 1, 2 2"
    );
    assert_eq!(server.sql("select path || ' ' || size from v6.artifacts"), "out 2");
    assert_eq!(server.sql(&format!("select state || ' ' || tasks from v6.outcomes where idea = '{idea}'")), "done 1");
    assert_eq!(
        server.sql("select pg_typeof(created)::text || ' ' || jsonb_typeof(command) from v6.jobs limit 1"),
        "timestamp with time zone array"
    );
    assert_eq!(server.sql("select count(*) from v6.jobs_per_day"), "1");
    let uncommented = "select count(*) from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
        where table_schema = 'v6' and table_type = 'BASE TABLE' and table_name <> '_sqlx_migrations'
        and col_description((table_schema || '.' || table_name)::regclass, ordinal_position) is null";
    assert_eq!(server.sql(uncommented), "0", "every column has a comment");

    // The server goes away in mid-flow: the node goes on, says so, and the mirror catches up by itself.
    server.kill();
    for n in 0..20 {
        assert!(node.v6(&["run", "--detach", "--", "echo", &n.to_string()]).status.success());
    }
    node.wait("it says what keeps it", |node| mirror(node)["error"].is_string() && mirror(node)["pending"] != 0);
    assert!(node.v6(&["mirror", "verify"]).status.code() == Some(1), "there is nothing to compare with");
    server.start();
    agrees(&node, &server);

    // The gateway is killed in mid-flow.
    for n in 0..20 {
        assert!(node.v6(&["run", "--detach", "--", "echo", &n.to_string()]).status.success());
    }
    node.kill();
    let node = gateway(root.path(), &server);
    node.wait("all jobs are over", |node| node.json(&["status", "--json"])["jobs"]["done"] == 41);
    agrees(&node, &server);
    assert_eq!(server.sql("select count(*) from v6.jobs"), "42");

    // What somebody changes in the mirror is found, and mended by filling it again.
    server.sql(&format!("update v6.jobs set state = 'done' where id = '{failed}'"));
    server.sql("delete from v6.outcomes");
    let checked = node.v6(&["mirror", "verify", "postgres"]);
    assert!(
        checked.status.code() == Some(1) && String::from_utf8_lossy(&checked.stderr).contains(&failed),
        "{checked:?}"
    );
    node.json(&["mirror", "rebuild", "postgres", "--json"]);
    agrees(&node, &server);
    assert_eq!(server.sql("select count(*) from v6.outcomes"), "42");
    node.stop();
}

#[test]
fn a_gateway_starts_while_its_database_is_away_and_refuses_an_address_that_is_none() {
    let root = tempfile::tempdir().expect("a directory");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let url = format!("postgres://v6@127.0.0.1:{port}/postgres");
    let node = Node::start_as("gateway", &[], &root.path().join("alpha"), &["--postgres", &url]);
    node.wait("it says what keeps it", |node| mirror(node)["error"].is_string());
    assert_eq!(mirror(&node)["kind"], "postgres");
    node.stop();
    let wrong = Command::new(env!("CARGO_BIN_EXE_v6"))
        .args(["gateway", "--api", "127.0.0.1:0", "--no-mdns", "--postgres", "nonsense", "--data-dir"])
        .arg(root.path().join("beta"))
        .output()
        .expect("v6 runs");
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && said.contains("--postgres is no address"), "{said}");
}
