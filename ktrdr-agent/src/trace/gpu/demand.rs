//! Who asked for a GPU: workers that say they have one, and requests that name one.

use std::sync::Arc;

use hashlink::LruCache;
use smallvec::SmallVec;

use crate::protocol::Role;
use crate::trace::body::{Scalar, scan};

/// Operations remembered; as many as are followed.
const MAX_OPERATIONS: usize = 4096;
/// Processes that said they have a GPU.
const MAX_DECLARED: usize = 256;
/// Processes per operation: an API, a worker, a reloader's child after a restart.
const MAX_SERVERS: usize = 8;

type Map<K, V> = LruCache<K, V, foldhash::fast::FixedState>;

/// A call about an operation, as this module looks at it.
pub struct Call<'a> {
    /// Which end was seen.
    pub role: Role,
    /// The process at that end.
    pub tgid: u32,
    /// Span name: method and route.
    pub name: &'a str,
    /// Request body, as far as it was kept.
    pub request: &'a [u8],
}

/// What is remembered.
pub struct Demand {
    declared: Map<u32, ()>,
    operations: Map<Arc<str>, Served>,
}

/// Who served an operation, and what was asked for.
#[derive(Clone, Debug, Default)]
struct Served {
    by: SmallVec<[u32; MAX_SERVERS]>,
    workers: SmallVec<[u32; MAX_SERVERS]>,
    device: Option<String>,
}

impl Demand {
    pub(super) fn new() -> Self {
        Self {
            declared: Map::with_hasher(MAX_DECLARED, foldhash::fast::FixedState::default()),
            operations: Map::with_hasher(MAX_OPERATIONS, foldhash::fast::FixedState::default()),
        }
    }

    /// A worker that registers with `capabilities.gpu` says that it has a GPU, or that it has none any more.
    pub fn registered(&mut self, call: &Call<'_>) {
        if call.role != Role::Client
            || !call.name.starts_with("POST ")
            || !call.name.ends_with("/workers/register")
        {
            return;
        }
        let mut gpu = None;
        scan(call.request, &mut |pointer, value| {
            if pointer == "/capabilities/gpu" {
                gpu = Some(value == Scalar::Bool(true));
            }
            gpu.is_none()
        });
        match gpu {
            Some(true) => {
                self.declared.insert(call.tgid, ());
            }
            Some(false) => {
                self.declared.remove(&call.tgid);
            }
            None => {}
        }
    }

    /// A call about an operation.
    pub fn called(&mut self, id: &Arc<str>, call: &Call<'_>) {
        let post = call.name.starts_with("POST ");
        if call.role != Role::Server && !post {
            return;
        }
        let op = self.operations.entry(id.clone()).or_insert_with(Served::default);
        let note = |list: &mut SmallVec<[u32; MAX_SERVERS]>| {
            if !list.contains(&call.tgid) && list.len() < MAX_SERVERS {
                list.push(call.tgid);
            }
        };
        if call.role == Role::Server {
            note(&mut op.by);
        }
        if post {
            let said = read(call.request, id);
            // Who is told the id does the work; who answers with it only hands it on.
            if said.names_it && call.role == Role::Server {
                note(&mut op.workers);
            }
            op.device = op.device.take().or(said.device);
        }
    }

    /// Processes that served the operation.
    pub fn served_by(&self, id: &str) -> &[u32] {
        self.operations.peek(id).map_or(&[], |o| &o.by)
    }

    /// Processes that were told to do the work.
    pub fn workers(&self, id: &str) -> &[u32] {
        self.operations.peek(id).map_or(&[], |o| &o.workers)
    }

    /// Why a GPU is expected to work for the operation, which is of this kind.
    pub fn expected(&self, id: &str, kind: &str) -> Option<String> {
        let op = self.operations.peek(id)?;
        if let Some(device) = &op.device {
            return Some(format!("its request asks for {device}"));
        }
        let declared = op.workers.iter().any(|w| self.declared.peek(w).is_some());
        (declared && kind == "training").then(|| "the worker registered with a GPU".to_owned())
    }
}

/// What a request says.
#[derive(Default)]
struct Said {
    names_it: bool,
    device: Option<String>,
}

fn read(request: &[u8], id: &str) -> Said {
    let mut said = Said::default();
    scan(request, &mut |pointer, value| {
        let key = pointer.rsplit('/').next().unwrap_or_default();
        match (key, value) {
            ("device", Scalar::Text(t)) if is_gpu(t) => said.device = Some(format!("device {t}")),
            ("gpu" | "use_gpu" | "require_gpu" | "requires_gpu" | "force_gpu", Scalar::Bool(true)) => {
                said.device = Some("a GPU".to_owned());
            }
            ("task_id" | "operation_id", Scalar::Text(t)) if t == id => said.names_it = true,
            _ => {}
        }
        true
    });
    said
}

/// `cuda`, `cuda:1`, `gpu`.
fn is_gpu(device: &str) -> bool {
    let kind = device.split(':').next().unwrap_or_default();
    kind.eq_ignore_ascii_case("cuda") || kind.eq_ignore_ascii_case("gpu")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call<'a>(role: Role, tgid: u32, name: &'a str, request: &'a str) -> Call<'a> {
        Call { role, tgid, name, request: request.as_bytes() }
    }

    #[test]
    fn a_worker_that_registers_with_a_gpu_is_expected_to_train_on_it() {
        let mut d = Demand::new();
        let id: Arc<str> = "op_training_1".into();
        let register = r#"{"worker_id":"w","capabilities":{"gpu":true,"cores":1}}"#;
        d.registered(&call(Role::Client, 7, "POST /api/v1/workers/register", register));
        d.called(&id, &call(Role::Server, 5, "POST /api/v1/trainings/start", r#"{"symbol":"AAPL"}"#));
        assert_eq!(d.expected(&id, "training"), None, "the API is no worker");
        d.called(&id, &call(Role::Server, 7, "POST /training/start", r#"{"task_id":"op_training_1"}"#));
        assert_eq!(d.expected(&id, "training").as_deref(), Some("the worker registered with a GPU"));
        assert_eq!(d.expected(&id, "backtesting"), None);
        assert_eq!((d.served_by(&id), d.workers(&id)), (&[5, 7][..], &[7][..]));
        let without = r#"{"capabilities":{"gpu":false}}"#;
        d.registered(&call(Role::Client, 7, "POST /api/v1/workers/register", without));
        assert_eq!(d.expected(&id, "training"), None);
    }

    #[test]
    fn a_request_may_name_a_device() {
        for (body, want) in [
            (r#"{"task_id":"op_x","device":"cuda:0"}"#, Some("its request asks for device cuda:0")),
            (r#"{"task_id":"op_x","options":{"use_gpu":true}}"#, Some("its request asks for a GPU")),
            (r#"{"task_id":"op_x","device":"cpu"}"#, None),
            (r#"{"task_id":"op_x","use_gpu":false}"#, None),
            (r#"{"task_id":"op_x","note":"cuda"}"#, None),
            ("device: cuda", None),
        ] {
            let mut d = Demand::new();
            d.called(&"op_x".into(), &call(Role::Server, 7, "POST /training/start", body));
            assert_eq!(d.expected("op_x", "training").as_deref(), want, "{body}");
        }
    }
}
