//! Runs the core on a thread of its own and carries out its effects.
//!
//! Inputs that arrived together are handled together and made durable in one commit; only then do their effects leave.

use std::collections::BTreeMap;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crdt::SigningKey;
use crdt::ids::NodeId;
use mesh::{Ack, Command, Core, Effect, Input, Now, Refusal, Time};
use tokio::sync::{mpsc, oneshot};

use super::recording::{Recording, Sink};
use super::{Shared, exec, find, join, logs, now_ms, retain};
use crate::blobs::{BoxFuture, BoxedStream, DialError, Dialer};
use crate::net::{NetEvent, NetHandle, Proto, Verdict};
use crate::store::RedbShelf;

/// Inputs that wait for the core. At the bound the sender waits.
const INBOX_MAX: usize = 4_096;
/// Effects that wait to be carried out. At the bound the core waits.
const EFFECTS_MAX: usize = 16_384;
/// Inputs that are handled in one turn.
const BATCH_MAX: usize = 512;
/// Interval between two tries to write to a full disk.
const RETRY_COMMIT: Duration = Duration::from_millis(500);

pub(crate) type NodeCore = Core<RedbShelf>;
type Query = Box<dyn FnOnce(&mut NodeCore) + Send>;

enum Message {
    Input(Input),
    Command(Command, oneshot::Sender<Result<Ack, Refusal>>),
    Query(Query),
    Record(Sink),
    Stop(oneshot::Sender<()>),
}

/// A handle on the core's thread.
#[derive(Debug, Clone)]
pub(crate) struct CoreHandle {
    inbox: std_mpsc::SyncSender<Message>,
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Both clocks. The monotonic one begins an hour into its time, so that nothing lies before its origin.
pub(crate) fn now() -> Now {
    let mono = START.elapsed() + Duration::from_secs(3_600);
    Now { mono: Time(u64::try_from(mono.as_micros()).unwrap_or(u64::MAX)), wall_ms: now_ms() }
}

impl CoreHandle {
    pub(crate) fn start(core: NodeCore, key: SigningKey) -> (Self, mpsc::Receiver<Effect>) {
        let (inbox, messages) = std_mpsc::sync_channel(INBOX_MAX);
        let (effects, outbox) = mpsc::channel(EFFECTS_MAX);
        let work = move || {
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(core, &key, &messages, &effects))).is_err()
            {
                // A node without a core would look alive and do nothing.
                eprintln!("v6: the core failed, see above: start the node again; a damaged store will be moved aside");
                std::process::exit(1);
            }
        };
        let spawned = std::thread::Builder::new().name("core".into()).spawn(work);
        drop(spawned.expect("the system starts one more thread"));
        (Self { inbox }, outbox)
    }

    fn send(&self, message: Message) {
        if let Err(std_mpsc::TrySendError::Full(message)) = self.inbox.try_send(message) {
            // The core is behind: whoever feeds it waits. An error means that it has stopped, and nobody needs an answer.
            tokio::task::block_in_place(|| drop(self.inbox.send(message)));
        }
    }

    pub(crate) fn input(&self, input: Input) {
        self.send(Message::Input(input));
    }

    pub(crate) async fn command(&self, command: Command) -> Option<Result<Ack, Refusal>> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Command(command, reply));
        answer.await.ok()
    }

    /// Runs a question on the core's thread.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut NodeCore) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Query(Box::new(move |core| drop(reply.send(question(core))))));
        answer.await.ok()
    }

    /// Records the core from now on; another recording ends.
    pub(crate) fn record(&self, sink: Sink) {
        self.send(Message::Record(sink));
    }

    pub(crate) async fn stop(&self) {
        let (reply, done) = oneshot::channel();
        self.send(Message::Stop(reply));
        drop(tokio::time::timeout(Duration::from_secs(3), done).await);
    }
}

fn run(mut core: NodeCore, key: &SigningKey, messages: &std_mpsc::Receiver<Message>, effects: &mpsc::Sender<Effect>) {
    let mut recording: Option<Recording> = None;
    let mut replies: BTreeMap<u64, oneshot::Sender<Result<Ack, Refusal>>> = BTreeMap::new();
    let mut next_request = 0;
    loop {
        let wait = core.next_wake().map_or(Duration::from_secs(1), |wake| {
            Duration::from_micros(wake.0.saturating_sub(now().mono.0)).min(Duration::from_secs(1))
        });
        let Some(messages) = gather(messages, Instant::now() + wait) else { return };
        let (mut inputs, mut stopped, mut record) = (Vec::new(), None, None);
        for message in messages {
            match message {
                Message::Input(input) => inputs.push(input),
                Message::Command(command, reply) => {
                    next_request += 1;
                    replies.insert(next_request, reply);
                    inputs.push(Input::Command { request: next_request, command });
                }
                Message::Query(question) => question(&mut core),
                Message::Record(sink) => record = Some(sink),
                Message::Stop(done) => stopped = Some(done),
            }
        }
        let mut out = Vec::new();
        let now = now();
        let noted = recording.as_ref().map(|_| inputs.clone());
        core.handle_all(now, inputs, &mut out);
        commit(&mut core);
        if let (Some(under_way), Some(inputs)) = (&recording, noted)
            && !under_way.note(&core, now, inputs)
        {
            end_recording(&mut core, key, &mut recording);
        }
        if let Some(sink) = record {
            match Recording::begin(&mut core, key, sink) {
                Ok(begun) => recording = Some(begun),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "nothing can be recorded"),
            }
        }
        for effect in out {
            if let Effect::Reply { request, result } = effect {
                if let Some(reply) = replies.remove(&request) {
                    drop(reply.send(result));
                }
            } else if effects.blocking_send(effect).is_err() {
                return;
            }
        }
        if let Some(done) = stopped {
            let _ = done.send(());
            return;
        }
    }
}

/// What there is for one turn: all that waits, and with nothing that hurries what comes within a moment: a turn costs time, and a
/// commit. `None`: nobody feeds the core any more.
fn gather(messages: &std_mpsc::Receiver<Message>, until: Instant) -> Option<Vec<Message>> {
    let mut gathered = Vec::new();
    let mut until = until;
    loop {
        match messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(message) => gathered.push(message),
            Err(std_mpsc::RecvTimeoutError::Timeout) => return Some(gathered),
            Err(std_mpsc::RecvTimeoutError::Disconnected) => return None,
        }
        let room = BATCH_MAX.saturating_sub(gathered.len());
        gathered.extend(std::iter::from_fn(|| messages.try_recv().ok()).take(room));
        let patience = |message: &Message| match message {
            Message::Input(input) => input.patience_ms(),
            Message::Command(..) | Message::Query(_) | Message::Record(_) | Message::Stop(_) => 0,
        };
        let least = gathered.iter().map(patience).min().unwrap_or(0);
        if gathered.len() >= BATCH_MAX || least == 0 {
            return Some(gathered);
        }
        until = until.min(Instant::now() + Duration::from_millis(least));
    }
}

fn end_recording(core: &mut NodeCore, key: &SigningKey, recording: &mut Option<Recording>) {
    *recording = None;
    core.set_signer(Arc::new(key.clone()));
}

/// Makes rows durable. While that fails nothing leaves this node: nothing is promised that could be lost.
fn commit(core: &mut NodeCore) {
    let shelf = core.replica_mut().shelf_mut();
    while let Err(error) = shelf.commit() {
        tracing::error!(error = format!("{error:#}"), "the store cannot be written; free some disk space");
        std::thread::sleep(RETRY_COMMIT);
    }
}

/// Opens streams for blobs.
pub(crate) struct BlobDialer(pub(crate) NetHandle);

impl Dialer for BlobDialer {
    fn open(&self, node: NodeId) -> BoxFuture<'static, Result<BoxedStream, DialError>> {
        let net = self.0.clone();
        Box::pin(async move {
            let stream = net.open_stream(node, Proto::Blobs).await.map_err(|e| DialError(e.to_string()))?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}

/// Tells the network who may speak.
pub(crate) async fn set_members(shared: &Shared) {
    let standing = shared
        .core
        .ask(|core| core.replica().roster().standing().map(|(n, _)| *n).collect::<std::collections::BTreeSet<_>>())
        .await;
    let mut members = standing.unwrap_or_default();
    if members.is_empty() {
        members.extend(shared.bootstrap.read().expect("no writer panics").iter().copied());
    }
    members.remove(&shared.me);
    super::AboutMesh::remember_members(&shared.options.data_dir, &members);
    shared.net.set_members(Arc::new(members));
}

pub(crate) async fn pump_net(shared: Arc<Shared>, mut events: mpsc::Receiver<NetEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            NetEvent::Connected { node, .. } => {
                shared.core.input(Input::Connected(node));
                shared.events.push("peer", serde_json::json!({"node": node, "online": true}));
            }
            NetEvent::Disconnected { node } => {
                shared.core.input(Input::Disconnected(node));
                shared.events.push("peer", serde_json::json!({"node": node, "online": false}));
            }
            NetEvent::Message { from, bytes } => {
                let input = tokio::task::block_in_place(|| Input::message(from, bytes));
                shared.core.input(input);
            }
            NetEvent::Gossip { via, bytes, id } => {
                let readable = mesh::msg::Msg::decode(&bytes).is_some();
                shared.net.report(id, if readable { Verdict::Accept } else { Verdict::Reject });
                shared.core.input(Input::Gossip { via, bytes });
            }
            NetEvent::Stream { from, proto, stream } => match proto {
                Proto::Blobs => {
                    let blobs = shared.blobs.clone();
                    tokio::spawn(async move { blobs.serve(Box::new(stream), from).await });
                }
                Proto::Logs => {
                    tokio::spawn(logs::serve(Arc::clone(&shared), stream));
                }
                Proto::Copies => {
                    tokio::spawn(exec::serve_copies(Arc::clone(&shared), from, stream));
                }
                Proto::Find => {
                    tokio::spawn(find::serve(Arc::clone(&shared), stream));
                }
            },
            NetEvent::Join { request, reply, .. } => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { drop(reply.send(join::admit(&shared, &request).await)) });
            }
            NetEvent::AddrsLearned { node, addrs } => {
                let remember = move |core: &mut NodeCore| join::remember(core.replica_mut().shelf_mut(), node, &addrs);
                let _ = shared.core.ask(remember).await;
            }
            NetEvent::Listening(_) | NetEvent::Rtt { .. } => {}
        }
    }
}

pub(crate) async fn pump_effects(shared: Arc<Shared>, mut effects: mpsc::Receiver<Effect>) {
    while let Some(effect) = effects.recv().await {
        match effect {
            Effect::Send(to, bytes) => {
                if let Err(error) = shared.net.send(to, bytes) {
                    tracing::debug!(%to, %error, "a message was not sent");
                }
            }
            Effect::Presence(words) => shared.presence.say(words),
            Effect::Gossip(bytes) => {
                if let Err(error) = shared.net.gossip(bytes) {
                    tracing::debug!(%error, "gossip was not sent");
                }
            }
            Effect::Start { job, claim, spec, holders, resume } => {
                tokio::spawn(exec::run(Arc::clone(&shared), exec::Work { job, claim, spec, holders, resume }));
            }
            Effect::Kill { job, claim, exit } => shared.cells.kill(job, claim, exit),
            Effect::Secure { job, claim, artifacts, list, log, holders } => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let held = exec::secure(&shared, (job, claim), artifacts, list, log.as_ref(), &holders).await;
                    shared.core.input(Input::Secured { job, claim, held });
                });
            }
            Effect::Reachable(node, addrs) => {
                let addrs: Vec<_> = addrs.iter().filter_map(|a| a.parse().ok()).collect();
                if addrs.is_empty() {
                    continue;
                }
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    super::AboutMesh::remember(&shared.options.data_dir, node, &addrs);
                    let known = addrs.clone();
                    shared.net.add_addrs(node, addrs).await;
                    let remember = move |core: &mut NodeCore| {
                        join::remember(core.replica_mut().shelf_mut(), node, &known);
                    };
                    let _ = shared.core.ask(remember).await;
                });
            }
            Effect::Pruned(jobs) => {
                tokio::spawn(retain::forget(Arc::clone(&shared), jobs));
            }
            Effect::RosterChanged => shared.changes.roster(),
            Effect::Changed(docs) => {
                shared.follows.changed(&docs);
                shared.ledger.changed(docs.iter().filter(|doc| doc.kind == crdt::doc::DocKind::Ledger).copied());
                shared.changes.docs(docs);
            }
            Effect::Misbehaved(node, what) => tracing::warn!(%node, what, "a peer misbehaves"),
            Effect::Reply { .. } => {}
        }
    }
}
