//! What Kubernetes knows of containers: their pod, namespace, workload and node, from the API server.
//!
//! A thread of its own lists the pods of this node, now and then and when a container shows up that it does not know.
//! Whoever describes processes only looks into what the last list said, and never waits: a process that is reported
//! before its pod is known is reported again once it is.
//!
//! The list of pods is all that is read. A deployment is known without reading ReplicaSets: the name of a ReplicaSet
//! that a deployment made ends in the pod's `pod-template-hash`.

mod client;
mod documents;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::client::ApiError;
use self::client::Client;
use crate::meta::container::Pod;
use crate::privileges::{self, Reach};
use crate::settings;

/// A list without being asked: labels and owners hardly change, and unknown containers ask by themselves.
const PERIOD: Duration = Duration::from_secs(300);
/// Pause before the first repetition, after a failure or when a container is still not in the list (its status comes
/// some seconds after its first process); each pause is twice the one before.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Lists in which an unknown container may be missing before it is taken for none of Kubernetes'.
const TRIES: u32 = 5;
/// Unknown containers at a time; a node runs some hundred pods.
const MAX_UNKNOWN: usize = 1_024;

/// Pods by container id.
pub type Pods = BTreeMap<String, Arc<Pod>>;

/// What is known, and how to ask for more.
pub struct Kubernetes {
    shared: Arc<Shared>,
    seen: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    asked: Condvar,
    version: AtomicU64,
}

#[derive(Default)]
struct State {
    pods: Arc<Pods>,
    /// Containers that no list had so far.
    unknown: BTreeSet<String>,
    /// One more since the last list.
    asked: bool,
}

impl Shared {
    /// A panic while the lock was held cannot leave the state half changed: plain assignments only.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kubernetes {
    /// Starts the thread. An API server that does not answer is asked again, and is no error; settings that cannot
    /// work are.
    pub fn start(settings: &settings::Kubernetes) -> Result<Option<Self>, ApiError> {
        let Some(target) = client::Target::new(settings)? else { return Ok(None) };
        let shared = Arc::new(Shared::default());
        let thread = shared.clone();
        std::thread::Builder::new()
            .name("kubernetes".into())
            .spawn(move || {
                privileges::worker(Reach::Receiver);
                // Made here, so that the threads it starts are confined as this one.
                match Client::new(target) {
                    Ok(client) => keep_up(&thread, || client.pods()),
                    Err(e) => tracing::warn!("Kubernetes names are not looked up: {e}"),
                }
            })
            .map_err(ApiError::Thread)?;
        Ok(Some(Self { shared, seen: 0 }))
    }

    /// The pod of a container, if it is known by now; else it is asked for.
    pub fn pod(&self, container: &str) -> Option<Arc<Pod>> {
        let mut state = self.shared.lock();
        if let Some(pod) = state.pods.get(container) {
            return Some(pod.clone());
        }
        if state.unknown.len() < MAX_UNKNOWN && state.unknown.insert(container.to_owned()) {
            state.asked = true;
            self.shared.asked.notify_one();
        }
        None
    }

    /// All pods, if a list came since the last call.
    pub fn news(&mut self) -> Option<Arc<Pods>> {
        let version = self.shared.version.load(Ordering::Acquire);
        if version == self.seen {
            return None;
        }
        self.seen = version;
        Some(self.shared.lock().pods.clone())
    }
}

/// Lists for as long as the process runs.
fn keep_up(shared: &Shared, list: impl Fn() -> Result<Pods, ApiError>) {
    let (mut tries, mut failed) = (0, false);
    loop {
        shared.lock().asked = false;
        let listed = list();
        let wait = match listed {
            Ok(pods) => {
                if failed {
                    tracing::info!("the Kubernetes API answers again");
                }
                failed = false;
                tries += 1;
                let mut state = shared.lock();
                state.pods = Arc::new(pods);
                let State { pods, unknown, .. } = &mut *state;
                unknown.retain(|container| !pods.contains_key(container));
                let done = unknown.is_empty() || tries >= TRIES;
                if done {
                    unknown.clear();
                }
                drop(state);
                shared.version.fetch_add(1, Ordering::Release);
                if done { PERIOD } else { pause(tries) }
            }
            Err(e) => {
                if !failed {
                    tracing::warn!("Kubernetes names are not known yet: {e}");
                }
                tries = if failed { tries + 1 } else { 1 };
                failed = true;
                pause(tries)
            }
        };
        if wait_until_asked(shared, wait, failed) {
            tries = 0;
        }
    }
}

fn pause(tries: u32) -> Duration {
    (PAUSE * 2u32.saturating_pow(tries.saturating_sub(1).min(10))).min(LONGEST_PAUSE)
}

/// Waits; less if a container is asked for, but never less than a pause. Whether one was.
fn wait_until_asked(shared: &Shared, longest: Duration, failed: bool) -> bool {
    let begin = Instant::now();
    let mut state = shared.lock();
    loop {
        let waited = begin.elapsed();
        // A server in trouble is not asked more often because there is more to ask.
        let enough = if state.asked && !failed { PAUSE.min(longest) } else { longest };
        let Some(left) = enough.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return state.asked;
        };
        state = shared.asked.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
