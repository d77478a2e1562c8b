//! The running node: wires core, store, network, blobs, cells and API together, and stops them in order.

mod about;
mod accepting;
mod api;
mod artifacts;
mod changes;
mod driver;
mod exec;
mod find;
mod inbox;
mod join;
mod ledger;
mod logs;
mod meaning;
mod notes;
mod presence;
mod recording;
mod retain;
mod tls;
mod views;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use anyhow::Context;
use crdt::SigningKey;
use crdt::ids::NodeId;
use crdt::replica::{FoundingWords, Replica};
use crdt::ticket::Ticket;
use mesh::offer::Offer;
use mesh::{Command, Config, Core};
use tokio::sync::mpsc;

use crate::accept::AcceptFile;
use crate::blobs::{Blobs, BlobsConfig};
use crate::cli::up::{SandboxChoice, UpOptions};
use crate::net::{Multiaddr, NetConfig, NetEvent, NetHandle};
use crate::platform::{files, lock::Lock};
use crate::sandbox::SandboxKind;
use crate::store::RedbShelf;
use about::AboutMesh;
use driver::CoreHandle;

const QUOTA_BYTES: u64 = 20 * 1024 * 1024 * 1024;
const LISTEN_FILE: &str = "listen.json";
const LISTEN_WAIT: Duration = Duration::from_millis(500);
const DRAIN_WAIT: Duration = Duration::from_millis(1_500);
const MEMORY_BACK_EVERY: Duration = Duration::from_secs(60);

/// What every part of the running node holds.
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    /// Signs entries of the ledger; bundles are signed by the core.
    pub(crate) key: SigningKey,
    pub(crate) name: String,
    pub(crate) options: UpOptions,
    pub(crate) sandbox: SandboxKind,
    pub(crate) core: CoreHandle,
    pub(crate) net: NetHandle,
    pub(crate) presence: Arc<presence::Presence>,
    pub(crate) blobs: Blobs,
    pub(crate) logs: logs::Logs,
    pub(crate) cells: exec::Cells,
    pub(crate) follows: logs::Follows,
    pub(crate) events: web_gateway::event_ring::EventRing,
    pub(crate) changes: changes::Changes,
    pub(crate) notes: notes::Notes,
    pub(crate) ledger: ledger::Ledger,
    /// Where the API listens, once it does.
    pub(crate) api: OnceLock<String>,
    pub(crate) bootstrap: RwLock<BTreeSet<NodeId>>,
    pub(crate) started_ms: u64,
    pub(crate) recovered: bool,
    /// Of a gateway: its mirrors.
    pub(crate) mirrors: std::sync::Mutex<Vec<Arc<web_gateway::mirror::Mirror>>>,
    /// When a write last found no room on the disk, in milliseconds since 1970.
    pub(crate) disk_full_ms: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("me", &self.me).finish_non_exhaustive()
    }
}

/// A time as the API shows it.
pub(crate) fn shown_time(ms: u64) -> String {
    views::time(ms)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0))
}

/// Runs a node until Ctrl-C or SIGTERM.
///
/// # Errors
/// What keeps it from starting, in words for its owner.
pub fn run(options: UpOptions) -> anyhow::Result<ExitCode> {
    crate::platform::memory::share_arenas();
    let lock = Lock::acquire(&options.data_dir)?;
    speak_on_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let code = runtime.block_on(serve(options));
    runtime.shutdown_timeout(Duration::from_secs(2));
    drop(lock);
    code
}

/// What the owner should know goes to stderr: this node's own warnings, or what `V6_LOG` asks for.
fn speak_on_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("V6_LOG").unwrap_or_else(|_| EnvFilter::new("off,node=warn,mesh=warn"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    // Only a program that has set another one fails here, and that one hears it.
    let _other = subscriber.with_target(false).try_init();
}

/// The number of this start: larger than that of the start before, also where the clock was set back since. It is kept beside the
/// store, for a store may be lost or come from a backup. Where it cannot be kept, the clock alone has to do.
fn incarnation(dir: &Path) -> u64 {
    let path = dir.join("incarnation");
    let before = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let now = before.map_or(0, |before| before.saturating_add(1)).max(now_ms());
    if let Err(error) = files::write_private(&path, format!("{now}\n").as_bytes()) {
        tracing::warn!(%error, "{} cannot be written", path.display());
    }
    now
}

fn identity(dir: &Path) -> anyhow::Result<SigningKey> {
    let path = dir.join("identity.key");
    match std::fs::read(&path) {
        Ok(bytes) => {
            let seed: [u8; 32] = bytes.try_into().map_err(|_| {
                anyhow::anyhow!("{} is damaged: it should have 32 bytes; restore it from a backup", path.display())
            })?;
            Ok(SigningKey::from_bytes(&seed))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let seed = random()?;
            files::write_private(&path, &seed).with_context(|| format!("writing {}", path.display()))?;
            Ok(SigningKey::from_bytes(&seed))
        }
        Err(e) => Err(anyhow::Error::new(e).context(format!("reading {}", path.display()))),
    }
}

pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("the system gives no random bytes: {e}"))?;
    Ok(bytes)
}

fn node_name(options: &UpOptions) -> String {
    let kept = std::fs::read_to_string(options.data_dir.join("name")).ok();
    let host = || std::fs::read_to_string("/etc/hostname").ok();
    let name = options.name.clone().or(kept).or_else(host).unwrap_or_else(|| "node".into());
    let name: String = name.trim().chars().take(64).collect();
    drop(std::fs::write(options.data_dir.join("name"), &name));
    name
}

fn offer(options: &UpOptions) -> Offer {
    let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let memory_bytes = sysinfo::System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    Offer {
        slots: options.slots.unwrap_or(cores),
        cores,
        memory_bytes,
        labels: options.labels.clone().unwrap_or_default(),
        price_micros_per_hour: options.price_micros_per_hour.unwrap_or(0),
        speed_percent: 100,
        region: options.region.clone().unwrap_or_default(),
        os: std::env::consts::OS.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Offer::default()
    }
}

fn listen_addrs(options: &UpOptions) -> anyhow::Result<Vec<Multiaddr>> {
    let kept = std::fs::read(options.data_dir.join(LISTEN_FILE)).ok();
    let kept: Vec<String> = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let words = if options.listen.is_empty() { kept } else { options.listen.clone() };
    words
        .iter()
        .map(|word| {
            word.parse().with_context(|| format!("--listen {word:?} is no multiaddr, such as /ip4/0.0.0.0/tcp/4001"))
        })
        .collect()
}

/// Starts the network: with the members and addresses that are known, from the store or from beside it.
fn start_net(
    options: &UpOptions,
    key: &SigningKey,
    store: Option<&Replica<RedbShelf>>,
    about: Option<&AboutMesh>,
) -> anyhow::Result<(NetHandle, mpsc::Receiver<NetEvent>)> {
    let mut known = store.map(join::known_peers).unwrap_or_default();
    let mut members: BTreeSet<NodeId> =
        store.map(|r| r.roster().standing().map(|(node, _)| *node).collect()).unwrap_or_default();
    if let Some(about) = about.filter(|_| members.is_empty()) {
        members.extend(about.members.iter().map(|(node, _)| *node));
        known.extend(about.addresses());
    }
    let named = join::named(&options.peers)?.into_iter().filter_map(|(node, address)| Some((node?, vec![address])));
    known.extend(named.filter(|(node, _)| members.contains(node)));
    let config = NetConfig {
        seed: key.to_bytes(),
        listen: listen_addrs(options)?,
        any_port: options.listen.is_empty(),
        mdns: options.mdns,
        known,
        members: Arc::new(members),
        mesh: store.map(Replica::mesh).or(about.map(|about| about.mesh)),
    };
    Ok(NetHandle::start(config)?)
}

/// A replica, and what its node must mind.
struct OpenedReplica {
    replica: Replica<RedbShelf>,
    /// Members to speak to before the roster is known.
    bootstrap: BTreeSet<NodeId>,
    /// Where a ticket says that members are reached.
    addrs: Vec<(NodeId, Vec<Multiaddr>)>,
}

/// Goes on in the mesh of the store, or of the file beside a lost store; else joins one, or founds one.
async fn open_replica(
    (existing, is_altered): (Result<Replica<RedbShelf>, RedbShelf>, bool),
    about: Option<AboutMesh>,
    net: &NetHandle,
    (key, name): (&SigningKey, &str),
    options: &UpOptions,
) -> anyhow::Result<OpenedReplica> {
    let (mut bootstrap, mut lost, mut addrs) = (BTreeSet::new(), false, Vec::new());
    let mut replica = match (existing, &about, &options.join) {
        (Ok(replica), about, ticket) => {
            if let Some(text) = ticket {
                let same = Ticket::decode(text)?.mesh == replica.mesh();
                anyhow::ensure!(same, "this data directory belongs to another mesh; use an empty one with --data-dir");
            }
            // It may have ended before the roster came.
            if let Some(about) = about.as_ref().filter(|_| replica.roster().members.is_empty()) {
                bootstrap = about.members.iter().map(|(node, _)| *node).collect();
            }
            replica
        }
        (Err(shelf), Some(about), _) => {
            lost = true;
            bootstrap = about.members.iter().map(|(node, _)| *node).collect();
            Replica::begin(shelf, about.mesh, about.founder)
        }
        (Err(shelf), None, Some(text)) => {
            let joined = join::join(net, key, name, text, &join::named(&options.peers)?).await?;
            (bootstrap, addrs) = (joined.members, joined.addrs);
            Replica::begin(shelf, joined.mesh, joined.founder)
        }
        (Err(shelf), None, None) => found(shelf, key, name, options)?,
    };
    net.set_mesh(replica.mesh()).await;
    if is_altered {
        tracing::warn!(
            "the store is a copy (restored, or moved to this machine): it goes on once a member told what it misses"
        );
    }
    if is_altered || lost {
        mesh::core::hold_own_feed(&mut replica);
    }
    for (node, addrs) in &addrs {
        join::remember(replica.shelf_mut(), *node, addrs);
    }
    replica.shelf_mut().commit()?;
    let now = AboutMesh { mesh: replica.mesh(), founder: replica.founder(), members: Vec::new() };
    now.write(&options.data_dir, about)?;
    Ok(OpenedReplica { replica, bootstrap, addrs })
}

fn sandbox(options: &UpOptions) -> SandboxKind {
    match options.sandbox {
        Some(SandboxChoice::Landlock) => SandboxKind::Landlock,
        Some(SandboxChoice::Bwrap) => SandboxKind::Bwrap,
        Some(SandboxChoice::None) => SandboxKind::None,
        None if cfg!(target_os = "linux") => SandboxKind::Landlock,
        None => SandboxKind::None,
    }
}

async fn serve(options: UpOptions) -> anyhow::Result<ExitCode> {
    let key = identity(&options.data_dir)?;
    let me = NodeId(key.verifying_key().to_bytes());
    let name = node_name(&options);
    exec::sweep(&options.data_dir);
    let opened = RedbShelf::open(&options.data_dir.join("v6.redb"))?;
    let mut recovered = opened.moved_to.is_some();
    let existing = Replica::open(opened.shelf);
    let about = AboutMesh::read(&options.data_dir);
    let (net, net_events) = start_net(&options, &key, existing.as_ref().ok(), about.as_ref())?;
    let OpenedReplica { replica, bootstrap, addrs } =
        open_replica((existing, opened.is_altered), about, &net, (&key, &name), &options).await?;
    let mesh_id = replica.mesh();
    let quota = BlobsConfig { quota_bytes: options.blob_quota_bytes.unwrap_or(QUOTA_BYTES) };
    let blobs = Blobs::open(&options.data_dir.join("blobs"), quota).await?;
    recovered |= blobs.recovered;
    let sandbox = sandbox(&options);
    let mut offer = offer(&options);
    offer.addrs = listening(&net).await;
    let accept = AcceptFile::read(&options.data_dir)?;
    offer.accepts = accepting::resolve(&accept, replica.roster(), me, sandbox).0;
    let config =
        Config { seed: random()?, incarnation: incarnation(&options.data_dir), retention: options.retention, offer };
    let core = Core::new(key.clone(), replica, config, driver::now());
    let (core, effects) = CoreHandle::start(core, key.clone());
    let voice = net.clone();
    // Whoever is not connected does not hear it, and is told again in a second.
    let presence = presence::Presence::start(move |to, bytes| drop(voice.send(to, bytes)))?;
    let shared = Arc::new(Shared {
        me,
        key,
        name,
        sandbox,
        core,
        net: net.clone(),
        presence,
        blobs: blobs.blobs,
        logs: logs::Logs::open(&options.data_dir.join("logs"))?,
        cells: exec::Cells::new(&options.data_dir, sandbox),
        follows: logs::Follows::default(),
        events: web_gateway::event_ring::EventRing::new(now_ms() * 1_000),
        changes: changes::Changes::default(),
        notes: notes::Notes::default(),
        ledger: ledger::Ledger::default(),
        api: OnceLock::new(),
        bootstrap: RwLock::new(bootstrap),
        started_ms: now_ms(),
        recovered,
        mirrors: std::sync::Mutex::default(),
        disk_full_ms: AtomicU64::new(0),
        options,
    });
    shared.blobs.set_dialer(Arc::new(driver::BlobDialer(net)));
    driver::set_members(&shared).await;
    for (node, addrs) in addrs {
        AboutMesh::remember(&shared.options.data_dir, node, &addrs);
        shared.net.add_addrs(node, addrs).await;
    }
    let pumps = [
        tokio::spawn(driver::pump_net(Arc::clone(&shared), net_events)),
        tokio::spawn(driver::pump_effects(Arc::clone(&shared), effects)),
        tokio::spawn(changes::pump(Arc::clone(&shared))),
        tokio::spawn(ledger::keep(Arc::clone(&shared))),
        tokio::spawn(meaning::keep(Arc::clone(&shared))),
        tokio::spawn(inbox::watch(Arc::clone(&shared))),
        tokio::spawn(shared.blobs.clone().gc_periodically(Duration::from_secs(300))),
        tokio::spawn(accepting::watch(Arc::clone(&shared))),
        tokio::spawn(retain::forget_leftovers(Arc::clone(&shared))),
        tokio::spawn(give_memory_back()),
    ];
    if let Some(path) = shared.options.recovery_key.clone() {
        recover(&shared, &path).await?;
    }
    if shared.options.slots != Some(0) && sandbox != SandboxKind::Bwrap {
        shared.cells.keep_warm();
    }
    start_mirrors(&shared)?;
    let server = start_api(&shared).await?;
    let stop = stop_signal()?;
    say_ready(&shared, mesh_id, reached_here(server.address()));
    stop.await;
    // A mirror holds the node; what it was writing is a transaction that did not happen.
    drop(std::mem::take(&mut *shared.mirrors.lock().unwrap_or_else(std::sync::PoisonError::into_inner)));
    let request = shared.core.command(Command::Drain);
    drop(tokio::time::timeout(DRAIN_WAIT, request).await);
    shared.cells.wait_empty(DRAIN_WAIT).await;
    shared.cells.cool();
    server.shutdown().await;
    drop(std::fs::remove_file(shared.options.data_dir.join(crate::client::API_FILE)));
    shared.core.stop().await;
    pumps.iter().for_each(tokio::task::JoinHandle::abort);
    shared.net.shutdown().await;
    shared.blobs.shutdown().await;
    shared.cells.tidy();
    Ok(ExitCode::SUCCESS)
}

fn start_mirrors(shared: &Arc<Shared>) -> anyhow::Result<()> {
    let Some(url) = &shared.options.mirrors.postgres else { return Ok(()) };
    let node = Arc::new(api::Api(Arc::clone(shared)));
    let mirror = web_gateway::mirror::Mirror::postgres(url, node).map_err(anyhow::Error::msg)?;
    shared.mirrors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Arc::new(mirror));
    Ok(())
}

/// Gives memory that a busy time left behind back to the system, again and again.
async fn give_memory_back() {
    loop {
        tokio::time::sleep(MEMORY_BACK_EVERY).await;
        drop(tokio::task::spawn_blocking(crate::platform::memory::give_back).await);
    }
}

/// Signs this node in as admin with the mesh's recovery key.
async fn recover(shared: &Shared, path: &Path) -> anyhow::Result<()> {
    use crdt::roster::{RecoveryAct, RecoverySigned};
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let seed: [u8; 32] = bytes
        .try_into()
        .map_err(|_| anyhow::anyhow!("{} is no recovery key: it should have 32 bytes", path.display()))?;
    let key = SigningKey::from_bytes(&seed);
    let (mesh, known) = shared
        .core
        .ask(|core| (core.replica().mesh(), core.replica().roster().recovery))
        .await
        .context("the node is stopping")?;
    let fits = known.is_none_or(|known| known == key.verifying_key().to_bytes());
    anyhow::ensure!(fits, "{} is the recovery key of another mesh", path.display());
    let act = RecoverySigned::sign(mesh, &key, RecoveryAct::Admit(shared.me), &shared.name);
    let change = crdt::bundle::Change::register(crdt::doc::DocId::ROSTER, &crdt::doc::Key::Recover(shared.me), &act);
    shared.core.command(Command::Write(vec![change])).await.context("the node is stopping")??;
    Ok(())
}

fn found(shelf: RedbShelf, key: &SigningKey, name: &str, options: &UpOptions) -> anyhow::Result<Replica<RedbShelf>> {
    let recovery = SigningKey::from_bytes(&random()?);
    let path = options.data_dir.join("recovery.key");
    files::write_private(&path, &recovery.to_bytes()).with_context(|| format!("writing {}", path.display()))?;
    let words = FoundingWords {
        mesh_name: format!("{name}'s mesh"),
        node_name: name.to_owned(),
        recovery: recovery.verifying_key().to_bytes(),
        nonce: random()?,
        now_ms: now_ms(),
    };
    Ok(Replica::found(shelf, key, &words).0)
}

async fn start_api(shared: &Arc<Shared>) -> anyhow::Result<web_gateway::server::ServerHandle> {
    let dir = &shared.options.data_dir;
    let token_path = dir.join(crate::client::TOKEN_FILE);
    let token = match std::fs::read_to_string(&token_path) {
        Ok(token) if token.trim().len() >= 32 => token.trim().to_owned(),
        _ => {
            let token = data_encoding::HEXLOWER.encode(&random::<32>()?);
            files::write_private(&token_path, token.as_bytes())?;
            token
        }
    };
    let address = shared.options.api;
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
        format!("the API cannot listen on {address}: choose another address with --api, or --api 127.0.0.1:0 for a free port")
    })?;
    let node = Arc::new(api::Api(Arc::clone(shared)));
    let is_open = !listener.local_addr()?.ip().to_canonical().is_loopback();
    let config = web_gateway::server::ServerConfig {
        token,
        node: shared.me.short(),
        allowed_hosts: Vec::new(),
        tls: is_open.then(|| tls::load(&shared.options)).transpose()?,
        insecure_lan: shared.options.insecure_lan,
    };
    let server = web_gateway::server::serve(listener, node, config)?;
    let api = shared.api.get_or_init(|| format!("http://{}", reached_here(server.address())));
    let about = serde_json::json!({"api": api, "pid": std::process::id()});
    files::write_private(&dir.join(crate::client::API_FILE), about.to_string().as_bytes())?;
    Ok(server)
}

/// Where this machine reaches what listens on an address: what listens on all of them is reached by loopback.
fn reached_here(mut address: std::net::SocketAddr) -> std::net::SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = match address {
            std::net::SocketAddr::V4(_) => std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            std::net::SocketAddr::V6(_) => std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        };
        address.set_ip(loopback);
    }
    address
}

/// The addresses that the node listens on, once the first is known.
async fn listening(net: &NetHandle) -> Vec<String> {
    let deadline = tokio::time::Instant::now() + LISTEN_WAIT;
    while net.listen_addrs().is_empty() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    net.listen_addrs().iter().take(mesh::limits::ADDRS_MAX).map(ToString::to_string).collect()
}

fn say_ready(shared: &Shared, mesh: crdt::ids::MeshId, api: std::net::SocketAddr) {
    let listen: Vec<String> = shared.net.listen_addrs().iter().map(ToString::to_string).collect();
    let asked = listen_addrs(&shared.options).unwrap_or_default();
    let again: Vec<String> = shared.net.listen_again(&asked).iter().map(ToString::to_string).collect();
    drop(std::fs::write(shared.options.data_dir.join(LISTEN_FILE), serde_json::json!(again).to_string()));
    if shared.options.json {
        let mut line = serde_json::json!({
            "event": "ready", "node": shared.me.to_string(), "name": shared.name, "mesh": mesh.to_string(),
            "api": format!("http://{api}"), "listen": listen,
        });
        if shared.options.is_gateway {
            line["role"] = "gateway".into();
            let kinds = shared.options.mirrors.postgres.iter().map(|_| "postgres").collect::<Vec<_>>();
            line["mirrors"] = serde_json::json!(kinds);
        }
        if shared.recovered {
            line["recovered"] = true.into();
        }
        println!("{line}");
    } else {
        println!("v6 is ready: node {} ({}) of mesh {}", shared.name, shared.me.short(), mesh.short());
        println!("dashboard and API: http://{api} (`v6 open`)   stop with Ctrl-C   invite others with `v6 invite`");
    }
}

fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = term.recv() => {} }
        #[cfg(not(unix))]
        drop(tokio::signal::ctrl_c().await);
    })
}
