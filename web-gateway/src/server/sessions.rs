//! People's sessions: a link that works once becomes a cookie, which ends by time, by its person or with the node's process.
//!
//! Secrets are kept as hashes only. What a cookie may do is decided in `guard`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::limits::{LINK_LIFE, LINKS_MAX, SESSION_IDLE, SESSION_LIFE, SESSIONS_MAX};

type Name = [u8; 32];

/// A session that a request came with.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    name: Name,
    /// Cancelled when the session ends: what still streams to it stops then.
    pub(crate) ended: CancellationToken,
}

#[derive(Debug)]
struct Live {
    until: Instant,
    seen: Instant,
    ended: CancellationToken,
}

/// All links and sessions of a node.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Links by the hash of their secret, with the time at which they end.
    links: BTreeMap<Name, Instant>,
    live: BTreeMap<Name, Live>,
}

fn name_of(secret: &str) -> Name {
    *blake3::hash(secret.as_bytes()).as_bytes()
}

/// A secret of 256 bits as it stands in an address or a cookie.
fn secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(data_encoding::BASE64URL_NOPAD.encode(&bytes))
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link's secret, which opens one session within [`LINK_LIFE`]. Of more than [`LINKS_MAX`] the oldest end.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn new_link(&self, now: Instant) -> Result<String, getrandom::Error> {
        let secret = secret()?;
        let mut state = self.state();
        state.links.retain(|_, until| *until > now);
        if state.links.len() >= LINKS_MAX {
            let oldest = state.links.iter().min_by_key(|(_, until)| **until).map(|(name, _)| *name);
            oldest.and_then(|name| state.links.remove(&name));
        }
        state.links.insert(name_of(&secret), now + LINK_LIFE);
        Ok(secret)
    }

    /// Uses a link up: its session's secret, or `None` when the link is unknown, over or was used.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn redeem(&self, link: &str, now: Instant) -> Result<Option<String>, getrandom::Error> {
        let secret = secret()?;
        let mut state = self.state();
        if state.links.remove(&name_of(link)).is_none_or(|until| until <= now) {
            return Ok(None);
        }
        state.end_old(now);
        let live = Live { until: now + SESSION_LIFE, seen: now, ended: CancellationToken::new() };
        state.live.insert(name_of(&secret), live);
        Ok(Some(secret))
    }

    /// The session of a cookie, if it still lives; it lives on from now.
    pub(crate) fn find(&self, cookie: &str, now: Instant) -> Option<Session> {
        let mut state = self.state();
        let name = name_of(cookie);
        let live = state.live.get_mut(&name)?;
        if live.is_over(now) {
            if let Some(over) = state.live.remove(&name) {
                over.ended.cancel();
            }
            return None;
        }
        live.seen = now;
        Some(Session { name, ended: live.ended.clone() })
    }

    /// Ends a session and what streams to it.
    pub(crate) fn end(&self, session: &Session) {
        self.state().live.remove(&session.name);
        session.ended.cancel();
    }
}

impl Live {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.until || now.saturating_duration_since(self.seen) > SESSION_IDLE
    }
}

impl State {
    /// Ends what is over, and at the bound the one that was seen longest ago.
    fn end_old(&mut self, now: Instant) {
        self.live.retain(|_, live| {
            let over = live.is_over(now);
            if over {
                live.ended.cancel();
            }
            !over
        });
        if self.live.len() >= SESSIONS_MAX
            && let Some(name) = self.live.iter().min_by_key(|(_, live)| live.seen).map(|(name, _)| *name)
            && let Some(oldest) = self.live.remove(&name)
        {
            oldest.ended.cancel();
        }
    }
}

/// How long a session's cookie is kept by a browser.
pub(crate) const COOKIE_LIFE: Duration = SESSION_LIFE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_one_session_and_only_in_time() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let link = sessions.new_link(now).expect("randomness");
        let cookie = sessions.redeem(&link, now).expect("randomness").expect("a session");
        assert!(sessions.redeem(&link, now).expect("randomness").is_none(), "used twice");
        assert!(sessions.find(&cookie, now).is_some());
        assert!(sessions.find(&link, now).is_none(), "a link is no session");
        let late = sessions.new_link(now).expect("randomness");
        assert!(sessions.redeem(&late, now + LINK_LIFE).expect("randomness").is_none(), "too late");
    }

    #[test]
    fn a_session_ends_by_its_person_by_silence_and_by_age() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let open = || {
            let link = sessions.new_link(now).expect("randomness");
            sessions.redeem(&link, now).expect("randomness").expect("a session")
        };
        let (left, silent, old) = (open(), open(), open());
        let session = sessions.find(&left, now).expect("it lives");
        sessions.end(&session);
        assert!(session.ended.is_cancelled() && sessions.find(&left, now).is_none());
        let silence = sessions.find(&silent, now).expect("it lives");
        assert!(sessions.find(&silent, now + SESSION_IDLE + Duration::from_secs(1)).is_none());
        assert!(silence.ended.is_cancelled(), "its streams end too");
        let mut at = now;
        while at < now + SESSION_LIFE {
            assert!(sessions.find(&old, at).is_some(), "it is seen again and again");
            at += SESSION_IDLE / 2;
        }
        assert!(sessions.find(&old, now + SESSION_LIFE).is_none());
    }

    #[test]
    fn of_too_many_sessions_the_one_seen_longest_ago_ends() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let open = |at: Instant| {
            let link = sessions.new_link(at).expect("randomness");
            sessions.redeem(&link, at).expect("randomness").expect("a session")
        };
        let first = open(now);
        let second = open(now + Duration::from_secs(1));
        assert!(sessions.find(&first, now + Duration::from_secs(2)).is_some());
        for _ in 2..=SESSIONS_MAX {
            open(now + Duration::from_secs(3));
        }
        let later = now + Duration::from_secs(4);
        assert!(sessions.find(&first, later).is_some() && sessions.find(&second, later).is_none());
    }
}
