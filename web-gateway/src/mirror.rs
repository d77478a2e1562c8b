//! Mirrors of the mesh, for those who want it elsewhere too. The mesh never needs them: they follow what the node holds, try
//! again when their server is away, and can be dropped and filled again.

mod postgres;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::api::{ApiError, MirrorCheck, MirrorView, NodeApi};

/// Longest time between two tries to reach a server that is away.
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// Orders that wait for a mirror. At the bound the next is refused.
const ORDERS_MAX: usize = 8;

/// What is asked of a running mirror.
enum Order {
    Verify(oneshot::Sender<Result<MirrorCheck, ApiError>>),
    Rebuild(oneshot::Sender<Result<(), ApiError>>),
}

/// What a mirror last told of itself.
#[derive(Debug)]
struct State {
    view: MirrorView,
    /// Last bundle of each feed that it holds.
    held: BTreeMap<String, u64>,
    /// When it last held all that there was.
    whole: Instant,
}

/// A running mirror. Dropping it ends it.
#[derive(Debug)]
pub struct Mirror {
    state: Arc<Mutex<State>>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl Mirror {
    /// Mirrors into PostgreSQL: `postgres://USER:PASSWORD@HOST/DATABASE`. It starts whether the server is there or not.
    ///
    /// # Errors
    /// A sentence when the address is none.
    pub fn postgres(url: &str, node: Arc<dyn NodeApi>) -> Result<Self, String> {
        let options = url.parse().map_err(|error| format!("--postgres is no address of a database: {error}"))?;
        let view = MirrorView { kind: "postgres".into(), ..MirrorView::default() };
        let state = Arc::new(Mutex::new(State { view, held: BTreeMap::new(), whole: Instant::now() }));
        let (orders, asked) = mpsc::channel(ORDERS_MAX);
        let task = tokio::spawn(postgres::run(options, node, state.clone(), asked));
        Ok(Self { state, orders, task })
    }

    /// postgres, s3 or nats.
    #[must_use]
    pub fn kind(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).view.kind.clone()
    }

    /// How it stands beside the heads of all feeds.
    #[must_use]
    pub fn view(&self, heads: &BTreeMap<String, u64>) -> MirrorView {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = |(author, seq): (&String, &u64)| seq.saturating_sub(state.held.get(author).copied().unwrap_or(0));
        let pending = heads.iter().map(behind).sum();
        let waited = u64::try_from(state.whole.elapsed().as_millis()).unwrap_or(u64::MAX);
        let lag_ms = if pending == 0 { 0 } else { state.view.lag_ms.max(waited) };
        MirrorView { pending, lag_ms, ..state.view.clone() }
    }

    /// Compares it with the mesh.
    ///
    /// # Errors
    /// [`ApiError::NotReady`] while its server is away.
    pub async fn verify(&self) -> Result<MirrorCheck, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Verify(reply), answer).await
    }

    /// Drops what it holds and fills it again; it answers once that has begun.
    ///
    /// # Errors
    /// [`ApiError::NotReady`] while its server is away.
    pub async fn rebuild(&self) -> Result<(), ApiError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Rebuild(reply), answer).await
    }

    async fn order<T>(&self, order: Order, answer: oneshot::Receiver<Result<T, ApiError>>) -> Result<T, ApiError> {
        let error = self.state.lock().unwrap_or_else(PoisonError::into_inner).view.error.clone();
        if let Some(why) = error {
            return Err(ApiError::NotReady(format!("the mirror's server is away ({why}); try again later")));
        }
        let busy = || ApiError::NotReady("the mirror is busy; try again later".into());
        self.orders.try_send(order).map_err(|_| busy())?;
        answer.await.map_err(|_| busy())?
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn set(state: &Mutex<State>, change: impl FnOnce(&mut State)) {
    change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
}
