//! Which failure explains the others.

use std::collections::BTreeMap;

use super::recovery::Recovery;
use super::symptom::{self, Kind};
use super::tree::{Edge, Tree};
use super::{Case, gpu, place, view};
use crate::trace::model::{Span, SpanKind};

/// A cause: equal failures count as attempts of one.
#[derive(Clone, Debug)]
pub struct Finding<'a> {
    /// What went wrong.
    pub kind: Kind,
    /// The spans in which it did, by start; never empty.
    pub spans: Vec<usize>,
    /// Failures elsewhere that explain it, by the callee and the time alone.
    pub beyond: Vec<&'a Span>,
    /// What the callee was doing while the caller waited: a call of its own.
    pub meanwhile: Option<usize>,
    /// Whether something that failed is explained by this, or it is itself what failed.
    pub matters: bool,
    /// Whether an edge on the way from the root was not certain.
    pub inferred: bool,
}

impl<'a> Finding<'a> {
    /// The span to show: the last attempt, which has the final state.
    pub fn span(&self, tree: &Tree<'a>) -> &'a Span {
        self.beyond.last().copied().unwrap_or_else(|| tree.spans[self.last()])
    }

    /// Its place in the tree.
    pub fn last(&self) -> usize {
        self.spans.last().copied().unwrap_or_default()
    }
}

/// All that was concluded.
#[derive(Debug)]
pub struct Analysis<'a> {
    /// Symptom of each span.
    pub symptoms: Vec<Option<Kind>>,
    /// Failures that do not count.
    pub recovery: Recovery,
    /// Causes, the first is the verdict's.
    pub findings: Vec<Finding<'a>>,
    /// Failures that an operation survived: it completed, or was cancelled.
    pub survived: Vec<Finding<'a>>,
    /// The operation's span, if there is one.
    pub operation: Option<usize>,
    /// Whether a cause is at or below the span.
    pub failing: Vec<bool>,
}

/// Equal causes.
type Key<'a> = (Kind, &'a str, Option<String>, &'a str);

impl<'a> Analysis<'a> {
    /// Applies the rules of [`super`].
    pub fn new(case: &'a Case, tree: &Tree<'a>) -> Self {
        let mut symptoms: Vec<Option<Kind>> = tree.spans.iter().map(|s| symptom::kind_of(s)).collect();
        place::name_lost_workers(tree, &mut symptoms);
        gpu::name_silent_ones(tree, &mut symptoms);
        let recovery = Recovery::new(tree, &symptoms);
        let (leaves, failing) = leaves(tree, &symptoms, &recovery);
        let asked_for =
            |s: &Span| case.operation.as_deref().is_none_or(|id| view::text(s, "operation.id") == Some(id));
        let is_it = |i: &usize| view::is_operation(tree.spans[*i]) && asked_for(tree.spans[*i]);
        let operation = (0..tree.len()).rev().find(is_it);
        let mut groups: BTreeMap<Key<'_>, Finding<'a>> = BTreeMap::new();
        for i in leaves {
            let span = tree.spans[i];
            let Some(own) = symptoms[i] else { continue };
            let beyond = place::beyond(case, tree, i, own);
            let kind = beyond.last().and_then(|s| symptom::kind_of(s)).unwrap_or(own);
            let shown = beyond.last().copied().unwrap_or(span);
            let key: Key<'_> = match kind {
                // Several workers that are busy are one shortage.
                Kind::WorkerBusy => (kind, "", None, &shown.name),
                _ => (kind, &shown.resource.service, view::peer(shown), &shown.name),
            };
            let path = tree.path(i);
            let above = &path[..path.len() - 1];
            // Work done after the answer has nobody above it that could fail with it.
            let own_part = above.iter().rposition(|a| tree.edge[*a] != Edge::Child).unwrap_or(0);
            // A command's calls are what it is about, however it took their failure.
            let asked = tree.parent[i].is_some_and(|p| view::is_command(tree.spans[p]));
            let in_background = tree.edge[i] != Edge::Child || asked;
            let matters = in_background
                || symptoms[i].is_some_and(|_| above[own_part..].iter().any(|a| symptoms[*a].is_some()));
            let uncertain = |s: &Span| view::text(s, "ktrdr.link.certainty") == Some("inferred");
            let concluded = kind == Kind::GpuOutOfMemory && gpu::is_inferred(tree, i);
            let inferred = concluded || !beyond.is_empty() || path.iter().any(|p| uncertain(tree.spans[*p]));
            let finding = groups.entry(key).or_insert_with(|| Finding {
                kind,
                spans: Vec::new(),
                beyond,
                meanwhile: None,
                matters,
                inferred,
            });
            finding.spans.push(i);
            finding.matters |= matters;
            finding.inferred &= inferred;
            finding.meanwhile = finding.meanwhile.or_else(|| place::meanwhile(tree, i, own));
        }
        let mut findings: Vec<Finding<'a>> = groups.into_values().collect();
        findings.sort_by_key(|f| (!f.matters, rank(tree, f), f.inferred, f.spans.first().copied()));
        put_deepest_wait_first(tree, &mut findings);
        // An operation that failed is what the others explain, if there is any other.
        let is_operation = |f: &Finding<'_>| f.spans.iter().all(|i| view::is_operation(tree.spans[*i]));
        if findings.iter().any(|f| f.matters && !is_operation(f)) {
            findings.retain(|f| !is_operation(f));
        }
        // An operation is more than the command that began it, or asked for its state, and that tells by its exit code.
        if case.operation.is_some() {
            findings.retain(|f| !f.spans.iter().all(|i| view::is_command(tree.spans[*i])));
        }
        let ended = operation.and_then(|i| view::text(tree.spans[i], "operation.status"));
        if findings.is_empty()
            && !matches!(ended, Some("completed" | "failed" | "cancelled"))
            && tree.len() > 0
        {
            let beyond = place::troubles(case, tree);
            if let Some(kind) = beyond.last().and_then(|s| symptom::kind_of(s)) {
                let spans = vec![0];
                findings.push(Finding {
                    kind,
                    spans,
                    beyond,
                    meanwhile: None,
                    matters: true,
                    inferred: true,
                });
            }
        }
        let survived = if case.operation.is_some() && matches!(ended, Some("completed" | "cancelled")) {
            let (stay, survived) = findings.into_iter().partition(|f| f.kind == Kind::Unheard);
            findings = stay;
            survived
        } else {
            Vec::new()
        };
        Self { symptoms, recovery, findings, survived, operation, failing }
    }

    /// The verdict's cause.
    pub fn first(&self) -> Option<&Finding<'a>> {
        self.findings.first()
    }
}

/// Failed spans that no failure below explains, by start; and for every span whether one is at or below it.
fn leaves(tree: &Tree<'_>, symptoms: &[Option<Kind>], recovery: &Recovery) -> (Vec<usize>, Vec<bool>) {
    let mut below = vec![false; tree.len()];
    let mut leaves = Vec::new();
    for i in tree.bottom_up() {
        if recovery.excused[i] {
            continue;
        }
        let end = tree.spans[i].end_wall_ns();
        let explained = tree.children[i]
            .iter()
            .any(|c| below[*c] && tree.edge[*c] == Edge::Child && tree.spans[*c].start_wall_ns() <= end);
        let own = symptoms[i].is_some() && !is_mirror(tree, symptoms, i) && !cut_off(tree, symptoms, i);
        if own && !explained {
            leaves.push(i);
        }
        below[i] = own || tree.children[i].iter().any(|c| below[*c]);
    }
    leaves.sort_unstable();
    (leaves, below)
}

/// Who waited in vain for somebody who waited in vain himself, at that time, is explained by the latter: a service with
/// one thread that waits for the gateway answers nobody.
fn put_deepest_wait_first(tree: &Tree<'_>, findings: &mut [Finding<'_>]) {
    let Some(first) = findings.first().filter(|f| f.kind == Kind::TimedOut && f.beyond.is_empty()) else {
        return;
    };
    let Some(callee) = place::callee(tree, first.last()).filter(|c| *c != first.span(tree).resource.service)
    else {
        return;
    };
    let waits: Vec<&Span> = first.spans.iter().map(|i| tree.spans[*i]).collect();
    let at_that_time = |s: &Span| {
        waits.iter().any(|w| s.start_wall_ns() < w.end_wall_ns() && s.end_wall_ns() > w.start_wall_ns())
    };
    let deeper = findings.iter().skip(1).position(|f| {
        let span = f.span(tree);
        let waited = f.kind == Kind::TimedOut && f.matters && span.kind == SpanKind::Client;
        waited && span.resource.service == callee && at_that_time(span)
    });
    if let Some(at) = deeper {
        findings[..=at + 1].rotate_right(1);
    }
}

/// The rank of a cause: that somebody was there and ended in the middle comes before all that others waited for.
fn rank(tree: &Tree<'_>, finding: &Finding<'_>) -> u8 {
    let ended = |i: &usize| {
        symptom::unanswered(finding.kind) && view::text(tree.spans[*i], "ktrdr.peer.exit").is_some()
    };
    if finding.spans.iter().any(ended) { Kind::WorkerLost.rank() } else { finding.kind.rank() }
}

/// A call that ended because its own process did, below something of that process that says so itself: the request that
/// it served, or the command that it was.
fn cut_off(tree: &Tree<'_>, symptoms: &[Option<Kind>], i: usize) -> bool {
    if symptoms[i] != Some(Kind::ProcessEnded) {
        return false;
    }
    let process = |i: usize| tree.spans[i].resource.attributes.get("process.pid");
    let mut at = tree.parent[i];
    while let Some(above) = at {
        let same = process(above) == process(i) && process(i).is_some();
        let says = symptoms[above] == Some(Kind::ProcessEnded) || view::is_command(tree.spans[above]);
        if same && says && symptoms[above].is_some() {
            return true;
        }
        at = tree.parent[above];
    }
    false
}

/// A server whose client gave up, or whose connection broke, has the same failure as its client seen from the other
/// side; it explains nothing.
pub fn is_mirror(tree: &Tree<'_>, symptoms: &[Option<Kind>], i: usize) -> bool {
    tree.spans[i].kind == SpanKind::Server
        && symptoms[i].is_some_and(symptom::unanswered)
        && tree
            .client_end(i)
            .is_some_and(|c| symptoms[c].is_some_and(|k| symptom::unanswered(k) || k == Kind::WorkerLost))
}
