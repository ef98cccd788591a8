//! All series: bounded, deterministic, and what does not fit is counted.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashlink::LruCache;
use indexmap::{Equivalent, IndexMap};

use super::Id;
use super::instrument::Kind;
use super::label::{Given, Label, OwnedLabel, cut};
use super::snapshot::{Point, Snapshot};
use super::value::{Exemplar, Histogram, Value};
use crate::event::{MS, Ns};
use crate::trace::model::{Attributes, Resource};

/// Series of one metric of one service: what OpenTelemetry's SDKs hold by default ("cardinality limits"). KTRDR's API
/// has a few hundred routes.
pub const MAX_PER_METRIC: u32 = 2_000;
/// Series in all.
pub const MAX_SERIES: usize = 20_000;
/// What they take at most: a histogram with an exemplar per bucket and seven texts of the longest is 2.9 kB. `cargo xtask
/// bench metrics` measures it.
pub const MAX_BYTES: usize = 64 << 20;
/// What a host with 500 routes and 20,000 requests/s among its services takes at most, likewise.
pub const USUAL_BYTES: usize = 8 << 20;
/// Services; the ones beyond share one Resource. A host runs tens.
pub const MAX_SERVICES: usize = 256;
/// Processes whose service is remembered, for speed only.
const MAX_KNOWN: usize = 1_024;
/// A reading that nobody renewed for so long is no reading of now: the shell renews them at least every second.
const STALE_NS: Ns = 60_000 * MS;
/// A number of things that has been zero for so long is not told any more: what it was of (a worker, a route) may be gone.
const ZERO_NS: Ns = 3_600_000 * MS;
/// Attribute of the series that takes what does not fit (OpenTelemetry's metrics SDK specification).
pub const OVERFLOW: &str = "otel.metric.overflow";
/// `service.name` of the services beyond [`MAX_SERVICES`].
pub const OTHER_SERVICE: &str = "other";

/// A service, as its series name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub(super) u16);

type State = foldhash::fast::FixedState;

/// All series of all services.
pub struct Registry {
    services: IndexMap<Identity, Arc<Resource>, State>,
    known: LruCache<usize, (Arc<Resource>, ServiceId), State>,
    /// Series by service and attributes, which several instruments have in common: what is measured of a call costs one
    /// look-up.
    sets: IndexMap<Key, Vec<Series>, State>,
    /// Series in all of them.
    len: usize,
    /// Series made so far.
    made: u64,
    /// How often sets went: those behind have other places since.
    moved: u64,
    per_metric: BTreeMap<(ServiceId, Id), u32>,
    overflow: BTreeMap<Id, u64>,
    start_wall_ns: u64,
}

/// What tells services apart.
type Identity = [Option<Box<str>>; 4];
const IDENTITY: [&str; 4] = ["service.name", "service.namespace", "service.instance.id", "container.id"];

/// Where the series with some attributes are, see [`Registry::measure_at`].
#[derive(Clone, Copy, Debug)]
pub struct SetRef {
    at: usize,
    moved: u64,
}

/// A measurement for [`Registry::measure`].
#[derive(Clone, Copy, Debug)]
pub enum Measured {
    /// So many more, for a counter.
    More(u64),
    /// A value for a histogram.
    Value(f64, Option<Exemplar>),
}

#[derive(Debug)]
struct Series {
    id: Id,
    /// Its place among all in the order of their first measurements.
    number: u64,
    value: Value,
    set: Ns,
}

/// What tells the series of an instrument apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    service: ServiceId,
    labels: Arc<[(&'static str, OwnedLabel)]>,
}

struct KeyRef<'a>(ServiceId, &'a [Given<'a>]);

/// Both kinds of key hash alike: by service and the attributes' values.
impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, h: &mut H) {
        self.0.hash(h);
        self.1.iter().for_each(|(_, value)| value.hash(h));
    }
}
impl Hash for Key {
    fn hash<H: Hasher>(&self, h: &mut H) {
        self.service.hash(h);
        self.labels.iter().for_each(|(_, value)| value.get().hash(h));
    }
}
impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        let same = |(a, b): (&Given<'_>, &(&'static str, OwnedLabel))| a.0 == b.0 && a.1 == b.1.get();
        self.0 == key.service
            && self.1.len() == key.labels.len()
            && self.1.iter().zip(key.labels.iter()).all(same)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            services: IndexMap::with_hasher(State::default()),
            known: LruCache::with_hasher(MAX_KNOWN, State::default()),
            sets: IndexMap::with_hasher(State::default()),
            len: 0,
            made: 0,
            moved: 0,
            per_metric: BTreeMap::new(),
            overflow: BTreeMap::new(),
            start_wall_ns: 0,
        }
    }
}

impl Registry {
    /// Since when sums add up, nanoseconds since the Unix epoch. The first word counts: a changed clock must not move
    /// the begin of a sum.
    pub fn started(&mut self, wall_ns: u64) {
        if self.start_wall_ns == 0 {
            self.start_wall_ns = wall_ns;
        }
    }

    /// The service that a process's Resource belongs to: all its processes (on this host, in this container) are one.
    pub fn service(&mut self, resource: &Arc<Resource>) -> ServiceId {
        // The cache holds the Resource, so an address cannot come to mean another one.
        let address = Arc::as_ptr(resource) as usize;
        if let Some((_, id)) = self.known.get(&address) {
            return *id;
        }
        let identity = identity(resource);
        let id = match self.services.get_index_of(&identity) {
            Some(at) => at,
            None if self.services.len() < MAX_SERVICES - 1 => {
                self.services.insert_full(identity, Arc::new(of_service(resource))).0
            }
            None => {
                let other = [Some(OTHER_SERVICE.into()), None, None, None];
                let mut attributes = Attributes::new();
                attributes.set("service.name", OTHER_SERVICE);
                let resource = Resource { service: OTHER_SERVICE.to_owned(), attributes };
                let entry = self.services.entry(other);
                let at = entry.index();
                entry.or_insert_with(|| Arc::new(resource));
                at
            }
        };
        // At most MAX_SERVICES.
        let id = ServiceId(u16::try_from(id).unwrap_or(u16::MAX));
        self.known.insert(address, (resource.clone(), id));
        id
    }

    /// Whether anything was ever measured of the service of this Resource's process.
    pub fn knows(&self, resource: &Resource) -> bool {
        self.services.contains_key(&identity(resource))
    }

    /// The Resource of a service.
    pub fn resource(&self, service: ServiceId) -> Arc<Resource> {
        self.services.get_index(usize::from(service.0)).map(|(_, r)| r.clone()).unwrap_or_default()
    }

    /// Adds to a counter.
    pub fn add(&mut self, service: ServiceId, id: Id, labels: &[Given<'_>], n: u64) {
        if let Some(Series { value: Value::Int(sum), .. }) = self.at(service, id, labels, true) {
            *sum += n;
        }
    }

    /// Sets a counter to a total that somebody else counts (the kernel, a queue). It never goes back.
    pub fn total(&mut self, service: ServiceId, id: Id, labels: &[Given<'_>], total: u64) {
        if let Some(Series { value: Value::Int(sum), .. }) = self.at(service, id, labels, true) {
            *sum = total.max(*sum);
        }
    }

    /// Likewise for amounts.
    pub fn total_float(&mut self, service: ServiceId, id: Id, labels: &[Given<'_>], total: f64) {
        if let Some(Series { value: Value::Float(sum), .. }) = self.at(service, id, labels, true) {
            *sum = total.max(*sum);
        }
    }

    /// Sets a reading at `now`.
    pub fn set(&mut self, service: ServiceId, id: Id, labels: &[Given<'_>], reading: f64, now: Ns) {
        if let Some(Series { value: Value::Float(v), set, .. }) = self.at(service, id, labels, true) {
            (*v, *set) = (reading, now);
        }
    }

    /// Begins to count anew how many there are: all series of a number of things are 0 at `now`.
    pub fn none(&mut self, id: Id, now: Ns) {
        let some = |series: &&mut Series| series.id == id && series.value != Value::Float(0.0);
        for series in self.sets.values_mut().flatten().filter(some) {
            (series.value, series.set) = (Value::Float(0.0), now);
        }
    }

    /// One more of a number of things.
    pub fn one_more(&mut self, service: ServiceId, id: Id, labels: &[Given<'_>], now: Ns) {
        if let Some(Series { value: Value::Float(v), set, .. }) = self.at(service, id, labels, true) {
            (*v, *set) = (*v + 1.0, now);
        }
    }

    /// A reading of which only the highest counts.
    pub fn highest(&mut self, service: ServiceId, id: Id, labels: &[Given<'_>], reading: f64, now: Ns) {
        if let Some(Series { value: Value::Float(v), set, .. }) = self.at(service, id, labels, true) {
            (*v, *set) = (v.max(reading), now);
        }
    }

    /// Counts a value in a histogram.
    pub fn observe(
        &mut self,
        service: ServiceId,
        id: Id,
        labels: &[Given<'_>],
        value: f64,
        exemplar: Option<Exemplar>,
    ) {
        self.measure(service, labels, &[(id, Measured::Value(value, exemplar))]);
    }

    /// Takes measurements of several instruments under the same attributes. Returns where they are.
    pub fn measure(
        &mut self,
        service: ServiceId,
        labels: &[Given<'_>],
        all: &[(Id, Measured)],
    ) -> Option<SetRef> {
        let mut set = self.set_of(service, labels);
        for (id, measured) in all {
            take(self.in_set(set, service, *id, labels, true), *id, measured);
            set = set.or_else(|| self.set_of(service, labels));
        }
        set.map(|at| SetRef { at, moved: self.moved })
    }

    /// As [`measure`](Self::measure), where it said that the series are. Whether they still are.
    pub fn measure_at(&mut self, set: SetRef, all: &[(Id, Measured)]) -> bool {
        let Some((key, _)) = self.sets.get_index(set.at).filter(|_| set.moved == self.moved) else {
            return false;
        };
        let service = key.service;
        for (id, measured) in all {
            take(self.in_set(Some(set.at), service, *id, &[], true), *id, measured);
        }
        true
    }

    /// Series held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Measurements that went to an overflow series, by instrument.
    pub fn overflow(&self) -> &BTreeMap<Id, u64> {
        &self.overflow
    }

    /// The series, made if there is room, else the overflow series.
    fn at(
        &mut self,
        service: ServiceId,
        id: Id,
        labels: &[Given<'_>],
        may_overflow: bool,
    ) -> Option<&mut Series> {
        self.in_set(self.set_of(service, labels), service, id, labels, may_overflow)
    }

    /// Where the series with these attributes are.
    fn set_of(&self, service: ServiceId, labels: &[Given<'_>]) -> Option<usize> {
        self.sets.get_index_of(&KeyRef(service, labels))
    }

    /// [`at`](Self::at), where it is known which set that is.
    fn in_set(
        &mut self,
        set: Option<usize>,
        service: ServiceId,
        id: Id,
        labels: &[Given<'_>],
        may_overflow: bool,
    ) -> Option<&mut Series> {
        debug_assert!(in_order(id, labels) || !may_overflow, "{id:?} has no such attributes: {labels:?}");
        // Of a handful.
        let within = |set: &Vec<Series>| set.iter().position(|s| s.id == id);
        if let Some(set) = set
            && let Some(at) = self.sets.get_index(set).and_then(|(_, set)| within(set))
        {
            return self.sets.get_index_mut(set)?.1.get_mut(at);
        }
        let count = self.per_metric.entry((service, id)).or_default();
        if may_overflow && (*count >= MAX_PER_METRIC || self.len >= MAX_SERIES) {
            *self.overflow.entry(id).or_default() += 1;
            return self.at(service, id, &[(OVERFLOW, Label::Bool(true))], false);
        }
        *count += 1;
        self.len += 1;
        self.made += 1;
        let value = match id.instrument().kind {
            Kind::Counter => Value::Int(0),
            Kind::FloatCounter | Kind::UpDown | Kind::Gauge => Value::Float(0.0),
            Kind::Histogram(bounds) => Value::Histogram(Histogram::new(bounds.len())),
        };
        let set = match set {
            Some(set) => self.sets.get_index_mut(set)?.1,
            None => {
                let labels = labels.iter().map(|(k, v)| (*k, OwnedLabel::of(*v))).collect();
                self.sets.entry(Key { service, labels }).or_default()
            }
        };
        set.push(Series { id, number: self.made, value, set: 0 });
        set.last_mut()
    }

    /// All there is at `now`, in the order of services, instruments and first measurement.
    pub fn snapshot(&mut self, now: Ns, wall_ns: u64) -> Snapshot {
        self.forget(now);
        let mut all: Vec<(&Key, &Series)> =
            self.sets.iter().flat_map(|(key, set)| set.iter().map(move |s| (key, s))).collect();
        all.sort_unstable_by_key(|(key, s)| (key.service, s.id, s.number));
        let point = |(key, series): (&Key, &Series)| Point {
            service: key.service.0,
            id: series.id,
            labels: key.labels.clone(),
            value: series.value.clone(),
        };
        Snapshot {
            start_wall_ns: self.start_wall_ns.min(wall_ns),
            wall_ns,
            services: self.services.values().cloned().collect(),
            points: all.into_iter().map(point).collect(),
        }
    }

    /// Readings that are out of date are forgotten.
    fn forget(&mut self, now: Ns) {
        let before = self.sets.len();
        let (per_metric, len) = (&mut self.per_metric, &mut self.len);
        self.sets.retain(|key, set| {
            set.retain(|series| {
                let kept_for = match series.id.instrument().kind {
                    Kind::UpDown if series.value == Value::Float(0.0) => ZERO_NS,
                    Kind::Gauge | Kind::UpDown => STALE_NS,
                    Kind::Counter | Kind::FloatCounter | Kind::Histogram(_) => Ns::MAX,
                };
                let keep = now.saturating_sub(series.set) <= kept_for;
                if !keep {
                    *len -= 1;
                    if let Some(n) = per_metric.get_mut(&(key.service, series.id)) {
                        *n = n.saturating_sub(1);
                    }
                }
                keep
            });
            !set.is_empty()
        });
        if self.sets.len() < before {
            self.moved += 1;
        }
    }
}

fn identity(resource: &Resource) -> Identity {
    IDENTITY.map(|key| {
        let text = resource.attributes.get(key).and_then(|v| v.as_str());
        let text = if key == "service.name" { Some(resource.service.as_str()) } else { text };
        text.map(Box::from)
    })
}

/// Adds a measurement to a series.
fn take(series: Option<&mut Series>, id: Id, measured: &Measured) {
    match (measured, id.instrument().kind, series.map(|s| &mut s.value)) {
        (Measured::More(n), _, Some(Value::Int(sum))) => *sum += n,
        (Measured::Value(value, exemplar), Kind::Histogram(bounds), Some(Value::Histogram(h))) => {
            h.observe(bounds, *value, *exemplar);
        }
        _ => {}
    }
}

/// Whether the attributes are the instrument's, in its order.
fn in_order(id: Id, labels: &[Given<'_>]) -> bool {
    let mut rest = id.instrument().attributes.iter();
    labels.iter().all(|(key, _)| rest.any(|k| k == key))
}

/// What is true of a whole service, not of one of its processes.
fn of_service(resource: &Resource) -> Resource {
    let mut attributes = Attributes::new();
    attributes.set("service.name", resource.service.clone());
    for a in resource.attributes.iter().filter(|a| !a.key.starts_with("process.")) {
        match a.value.as_str() {
            Some(text) => attributes.set(a.key.clone(), cut(text).to_owned()),
            None => attributes.set(a.key.clone(), a.value.clone()),
        }
    }
    Resource { service: resource.service.clone(), attributes }
}
