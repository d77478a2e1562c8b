//! Ways out of the sandbox, each tried by a real task, with a control that shows the way open without one.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, clippy::too_many_lines, reason = "tests")]

#[path = "cell_support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;

use node::cell::{CellEvent, CellSpec, Death, Exit, SandboxKind, Stream};
use node::sandbox;
use support::{Rig, gone};

/// Which kinds can be tried here; says so where one cannot.
fn kinds() -> Vec<SandboxKind> {
    let kinds = [SandboxKind::Landlock, SandboxKind::Bwrap];
    let usable = kinds.into_iter().filter(|kind| match sandbox::probe(*kind) {
        Ok(()) => true,
        Err(why) => {
            println!("skipped: {why}");
            false
        }
    });
    usable.collect()
}

fn python() -> bool {
    let there = Path::new("/usr/bin/python3").exists() || Path::new("/usr/local/bin/python3").exists();
    if !there {
        println!("skipped: python3 is not installed");
    }
    there
}

async fn shell(rig: &Rig, script: &str) -> (Exit, String) {
    run(rig, rig.shell(script)).await
}

async fn run(rig: &Rig, spec: CellSpec) -> (Exit, String) {
    let run = rig.run(spec, 0..1, 1).await;
    (run.exit(0), run.text(0, Stream::Stdout) + &run.text(0, Stream::Stderr))
}

/// A Python program that makes a system call by its number and prints the errno.
fn syscall(call: &str) -> String {
    format!(
        "import ctypes,os,sys\nlibc=ctypes.CDLL(None,use_errno=True)\n\
         r=libc.syscall({call})\nprint('result',r,ctypes.get_errno() if r<0 else 0)\n"
    )
}

#[tokio::test]
async fn a_confined_job_still_works() {
    for kind in kinds() {
        let rig = Rig::new(kind);
        let script = "set -e; echo a > file; mkdir -p d/e; mv file d/e/; cat d/e/file; ln -s d l; ls l; \
                      echo t > $TMPDIR/t; echo h > $HOME/h; echo c > $V6_CHECKPOINT_DIR/c; chmod +x d/e/file; \
                      (exit 3) || true; ls /usr/bin >/dev/null; sort </dev/null; date >/dev/null; \
                      head -c 4 /dev/urandom >/dev/null; echo x >/dev/null; cat /proc/self/status >/dev/null; echo fine";
        let (exit, out) = shell(&rig, script).await;
        assert_eq!((exit, out.contains("fine")), (Exit::Code(0), true), "{kind:?}: {out}");
        assert_eq!(fs::read_to_string(rig.checkpoints().join("c")).unwrap(), "c\n");
    }
}

#[tokio::test]
async fn nothing_outside_of_the_workspace_can_be_written() {
    for kind in kinds() {
        let rig = Rig::new(kind);
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("escaped");
        let path = target.display();
        for way in [
            format!("echo x > {path}"),
            format!("ln -s {} out && echo x > out/escaped", outside.path().display()),
            format!("cp /etc/hostname {path}"),
            format!("mkdir {path}"),
            format!("mkfifo {path}"),
            format!("ln /etc/hostname {path}"),
            format!("echo x > ../../{}/escaped", outside.path().file_name().unwrap().display()),
            "echo x > /usr/escaped-v6".to_owned(),
            "echo x > /etc/escaped-v6".to_owned(),
            "echo x >> /proc/sys/kernel/hostname".to_owned(),
        ] {
            let (exit, out) = shell(&rig, &way).await;
            let inside_only = kind == SandboxKind::Bwrap && exit == Exit::Code(0);
            assert!(inside_only || matches!(exit, Exit::Code(1..)), "{kind:?}: {way}: {out}");
            assert!(!target.exists() && target.symlink_metadata().is_err(), "{kind:?}: {way}");
        }
        assert!(!Path::new("/usr/escaped-v6").exists() && !Path::new("/etc/escaped-v6").exists());
    }
}

#[tokio::test]
async fn a_file_outside_cannot_be_emptied_or_removed() {
    for kind in kinds() {
        let rig = Rig::new(kind);
        let outside = tempfile::tempdir().unwrap();
        let precious = outside.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        for way in ["truncate -s 0", "rm -f", "mv -t .", ": >"] {
            let _ = shell(&rig, &format!("{way} {}", precious.display())).await;
            assert_eq!(fs::read_to_string(&precious).unwrap(), "precious", "{kind:?}: {way}");
        }
    }
}

#[tokio::test]
async fn the_nodes_keys_and_the_owners_files_are_out_of_reach() {
    for kind in kinds() {
        let rig = Rig::new(kind);
        // The data directory holds the workspace itself; the key lies beside it.
        let key = rig.dir.path().join("identity.key");
        fs::write(&key, "SECRET").unwrap();
        fs::hard_link(&key, rig.dir.path().join("second-name")).unwrap();
        let key = key.display();
        for way in [
            format!("cat {key}"),
            "cat ../identity.key".to_owned(),
            format!("ln -s {key} k; cat k"),
            "ln -s .. up; cat up/identity.key".to_owned(),
            format!("ln {key} hard; cat hard"),
            format!("cp {key} copy; cat copy"),
            format!("cat /proc/self/root{key}"),
            format!("cat /proc/$PPID/root{key}"),
            "cat /proc/$PPID/cwd/../identity.key".to_owned(),
            format!("dd if={key}"),
        ] {
            let (_, out) = shell(&rig, &way).await;
            assert!(!out.contains("SECRET"), "{kind:?}: {way}: {out}");
        }
        let (exit, out) = shell(&rig, &format!("ls {}", rig.dir.path().display())).await;
        assert!(!out.contains("identity.key"), "{kind:?}: {exit:?} {out}");
    }
    let open = Rig::new(SandboxKind::None);
    fs::write(open.dir.path().join("identity.key"), "SECRET").unwrap();
    assert!(shell(&open, "cat ../identity.key").await.1.contains("SECRET"), "the control");
}

#[tokio::test]
async fn the_home_is_hidden_but_for_its_toolchains() {
    let home = std::env::home_dir().unwrap();
    for kind in kinds() {
        let rig = Rig::new(kind);
        for way in [
            "ls -A",
            "ls -A .ssh",
            "cat .ssh/id_ed25519",
            "cat .bash_history",
            "cat .cargo/credentials.toml",
            "ls -A .config",
        ] {
            let (command, name) = way.rsplit_once(' ').filter(|(_, n)| n.starts_with('.')).unwrap_or((way, ""));
            let (exit, out) = shell(&rig, &format!("{command} {}/{name}", home.display())).await;
            let seen = out.lines().any(|line| line.starts_with(".ssh") || line.starts_with(".bash"));
            assert!(matches!(exit, Exit::Code(1..)) || !seen, "{kind:?}: {way}: {exit:?} {out}");
        }
        if home.join(".rustup/toolchains").is_dir() && home.join(".cargo/bin/rustc").exists() {
            let script = "rustc --version && printf 'fn main(){println!(\"built\")}' > m.rs && rustc m.rs && ./m";
            let (exit, out) = shell(&rig, script).await;
            assert_eq!((exit, out.contains("built")), (Exit::Code(0), true), "{kind:?}: {out}");
        }
        let (_, out) = shell(&rig, "cat /etc/shadow; ls /etc/ssl/private; echo $HOME").await;
        assert!(!out.contains("root:") && !out.contains(&format!("\n{}\n", home.display())), "{kind:?}: {out}");
    }
}

#[tokio::test]
async fn temporary_files_of_others_are_hidden() {
    let other = tempfile::NamedTempFile::new().unwrap();
    fs::write(other.path(), "SECRET").unwrap();
    for kind in kinds() {
        let rig = Rig::new(kind);
        let (_, out) = shell(&rig, &format!("cat {}; ls /tmp", other.path().display())).await;
        let name = other.path().file_name().unwrap().to_string_lossy().into_owned();
        assert!(!out.contains("SECRET"), "{kind:?}: {out}");
        assert!(!out.lines().any(|line| line == name), "{kind:?}: {out}");
    }
}

#[tokio::test]
async fn no_socket_opens_unless_it_is_granted() {
    if !python() {
        return;
    }
    let script = "import socket,sys\nfor f in ('AF_INET','AF_INET6','AF_UNIX','AF_NETLINK','AF_PACKET','AF_VSOCK','AF_ALG'):\n \
                  \x20for t in (socket.SOCK_STREAM,socket.SOCK_DGRAM,socket.SOCK_RAW):\n \
                  \x20\x20try:\n    socket.socket(getattr(socket,f),t); print(f,'open')\n   except OSError: pass\n\
                  a,b=socket.socketpair(); a.send(b'x'); assert b.recv(1)==b'x'\n\
                  try:\n socket.socketpair(socket.AF_UNIX,socket.SOCK_DGRAM); print('datagram pair open')\nexcept OSError: pass\nprint('pair works')";
    for kind in kinds() {
        let rig = Rig::new(kind);
        let (exit, out) = run(&rig, rig.spec(&["python3", "-c", script])).await;
        assert_eq!((exit, out.as_str()), (Exit::Code(0), "pair works\n"), "{kind:?}");
        let mut spec = rig.spec(&["python3", "-c", script]);
        spec.network = true;
        let (_, out) = run(&rig, spec).await;
        assert!(out.contains("AF_INET open") && out.contains("AF_INET6 open"), "{kind:?}: {out}");
        for refused in ["AF_UNIX open", "AF_PACKET", "AF_VSOCK", "AF_ALG", "datagram"] {
            assert!(!out.contains(refused), "{kind:?}: {out}");
        }
    }
}

#[tokio::test]
async fn a_granted_network_reaches_a_real_listener_and_a_withheld_one_does_not() {
    if !python() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("import socket;s=socket.create_connection(('127.0.0.1',{port}),5);print('connected')");
    for kind in kinds() {
        for network in [true, false] {
            let rig = Rig::new(kind);
            let mut spec = rig.spec(&["python3", "-c", &script]);
            spec.network = network;
            let (_, out) = run(&rig, spec).await;
            assert_eq!(out.contains("connected\n"), network, "{kind:?} {network}: {out}");
        }
    }
}

#[tokio::test]
async fn dangerous_system_calls_are_refused() {
    if !python() {
        return;
    }
    // Number, arguments; EPERM is 1, ENOSYS 38.
    let calls: &[(&str, &str)] = &[
        ("ptrace TRACEME", "101,0,0,0,0"),
        ("ptrace ATTACH", "101,16,os.getppid(),0,0"),
        ("process_vm_readv", "310,os.getppid(),0,0,0,0,0"),
        ("unshare user", "272,0x10000000"),
        ("unshare mount", "272,0x20000"),
        ("unshare time", "272,0x80"),
        ("clone with a user namespace", "56,0x10000011,0,0,0,0"),
        ("clone3", "435,0,0"),
        ("setns", "308,0,0"),
        ("io_uring_setup", "425,8,ctypes.create_string_buffer(256)"),
        ("io_uring_enter", "426,0,0,0,0,0,0"),
        ("mount", "165,b'none',b'/tmp',b'tmpfs',0,0"),
        ("open_tree", "428,-100,b'/',1"),
        ("fsopen", "430,b'tmpfs',0"),
        ("pivot_root", "155,b'.',b'.'"),
        ("chroot", "161,b'.'"),
        ("bpf", "321,0,0,0"),
        ("perf_event_open", "298,0,0,-1,-1,0"),
        ("keyctl", "250,0,-3,1"),
        ("add_key", "248,b'user',b'x',b'y',1,-3"),
        ("userfaultfd", "323,0"),
        ("kexec_load", "246,0,0,0,0"),
        ("init_module", "175,0,0,b''"),
        ("pidfd_getfd", "438,0,0,0"),
        ("open_by_handle_at", "304,-1,0,0"),
        ("x32 getpid", "0x40000000+39"),
        ("kill of the cell", "62,os.getppid(),9"),
        ("kill of everything", "62,-1,9"),
        ("kill of the cell's group", "62,-os.getppid(),9"),
        ("tgkill of the cell", "234,os.getppid(),os.getppid(),9"),
        ("limits of the cell", "302,os.getppid(),0,ctypes.create_string_buffer(16),0"),
    ];
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the numbers are x86_64's");
        return;
    }
    for kind in kinds() {
        let rig = Rig::new(kind);
        for (name, call) in calls {
            let (exit, out) = run(&rig, rig.spec(&["python3", "-c", &syscall(call)])).await;
            let refused = out.contains("result -1 1\n") || out.contains("result -1 38\n");
            assert!(exit == Exit::Code(0) && refused, "{kind:?}: {name}: {exit:?} {out}");
        }
    }
    let open = Rig::new(SandboxKind::None);
    let (_, out) = run(&open, open.spec(&["python3", "-c", &syscall("101,0,0,0,0")])).await;
    assert!(out.contains("result 0 0"), "the control: {out}");
}

#[tokio::test]
async fn signals_do_not_leave_the_sandbox() {
    for kind in kinds() {
        let rig = Rig::new(kind);
        let mut outsider = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let run = rig.run(rig.shell(&format!("kill -9 {}; echo $?", outsider.id())), 0..1, 1).await;
        let alive = outsider.try_wait().unwrap().is_none();
        outsider.kill().unwrap();
        outsider.wait().unwrap();
        assert!(alive || !run.notes.is_empty(), "{kind:?}: {:?}", run.text(0, Stream::Stdout));
    }
}

#[tokio::test]
async fn the_cells_own_pipes_are_not_for_its_tasks() {
    for kind in kinds() {
        let rig = Rig::new(kind);
        let script = "cat /proc/$PPID/fd/0; cat /proc/$PPID/environ; echo forged > /proc/$PPID/fd/1; \
                      cat /proc/$PPID/maps; echo end";
        let (exit, out) = shell(&rig, script).await;
        assert_eq!(exit, Exit::Code(0), "{kind:?}");
        assert_eq!(
            out.lines().filter(|line| line.contains("ermission denied") || line.contains("cannot")).count(),
            4,
            "{kind:?}: {out}"
        );
    }
}

#[tokio::test]
async fn daemons_in_a_sandbox_die_with_their_task_and_with_their_node() {
    for kind in kinds() {
        let rig = Rig::new(kind);
        let (handle, mut events) = rig.spawn(rig.shell("setsid sleep 98765 >/dev/null 2>&1 & echo $!; sleep 0.1"));
        handle.run(0..1, 1).unwrap();
        let mut run = support::Run::default();
        run.until(&mut events, |event| matches!(event, CellEvent::Idle)).await;
        if kind == SandboxKind::Landlock {
            let pid = run.text(0, Stream::Stdout).trim().parse().unwrap();
            assert!(gone(pid).await);
        }
        drop(handle);
        run.until(&mut events, |event| matches!(event, CellEvent::Died { .. })).await;
        drop(run);
        let (handle, mut events) = rig.spawn(rig.shell("setsid sleep 98764 & echo up; sleep 98763"));
        handle.run(0..1, 1).unwrap();
        let mut run = support::Run::default();
        run.until(&mut events, |event| matches!(event, CellEvent::Output { .. })).await;
        drop(handle);
        run.until(&mut events, |event| matches!(event, CellEvent::Died { .. })).await;
        assert_eq!(sleepers(&["98763", "98764", "98765"]), 0, "{kind:?}");
    }
}

/// How many processes sleep for one of these odd times.
fn sleepers(times: &[&str]) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| times.iter().any(|time| *line == format!("sleep\0{time}\0"))).count()
}

#[tokio::test]
async fn a_workspace_that_is_not_there_is_refused_with_its_name() {
    let rig = Rig::new(SandboxKind::Landlock);
    let mut spec = rig.shell("true");
    spec.workspace = rig.dir.path().join("nowhere");
    let (handle, mut events) = rig.spawn(spec);
    handle.run(0..1, 1).unwrap();
    match events.recv().await {
        Some(CellEvent::Died { reason: Death::Refused(why) }) => assert!(why.contains("nowhere"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(events.recv().await, None);
}
