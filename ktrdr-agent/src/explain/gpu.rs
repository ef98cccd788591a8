//! What GPU samples say about a failure or about slowness.
//!
//! A full GPU is a cause only of a failure that says so itself, or of one that gives no reason at all (and then it is
//! inferred). An idle GPU, or none, is no failure: it is named where the time went.

use super::cause::Finding;
use super::symptom::Kind;
use super::tree::Tree;
use super::view;
use crate::trace::model::{Span, SpanKind, Value};

/// From this part of its memory on a GPU is full: allocators want blocks of megabytes in a row.
const FULL: f64 = 0.97;
/// A GPU that did nothing for this part of the time is not where the time went.
const IDLE: f64 = 0.8;
/// Samples must speak of this part of the time before their silence counts.
const SEEN: f64 = 0.8;
/// Shorter work is loading and start-up on any GPU.
const LONG_NS: u64 = 10_000_000_000;

/// What frameworks say when a GPU's memory is full, in lower case: PyTorch (CUDA, ROCm, MPS), cuBLAS, cuDNN, JAX and
/// TensorFlow.
const OUT_OF_MEMORY: [&str; 8] = [
    "cuda out of memory",
    "cuda error: out of memory",
    "hip out of memory",
    "mps backend out of memory",
    "cudaerrormemoryallocation",
    "cuda_error_out_of_memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
];

/// Whether the span's own words say that a GPU's memory was full.
pub fn says_out_of_memory(span: &Span) -> bool {
    let said = [
        view::message(span),
        view::text(span, "operation.error"),
        view::text(span, "ktrdr.business_error.message"),
        view::text(span, "exception.message"),
    ];
    said.into_iter().flatten().any(|text| {
        let text = text.to_ascii_lowercase();
        OUT_OF_MEMORY.iter().any(|words| text.contains(words))
    })
}

/// Failures without a reason whose GPU was full at the last sample before: they are renamed.
pub fn name_silent_ones(tree: &Tree<'_>, symptoms: &mut [Option<Kind>]) {
    for (i, symptom) in symptoms.iter_mut().enumerate() {
        let wordless = match symptom {
            Some(Kind::HttpError) => {
                view::code(tree.spans[i]) == Some(500) && view::message(tree.spans[i]).is_none()
            }
            Some(Kind::BusinessError) => {
                view::is_operation(tree.spans[i])
                    && view::text(tree.spans[i], "operation.error") == Some(NO_REASON)
            }
            _ => false,
        };
        if wordless && full(with_samples(tree, i)).is_some() {
            *symptom = Some(Kind::GpuOutOfMemory);
        }
    }
}

/// What an operation's span says when no reply gave a reason.
const NO_REASON: &str = "the operation failed; no reply said why";

/// Whether it is only concluded, and not said.
pub fn is_inferred(tree: &Tree<'_>, i: usize) -> bool {
    !says_out_of_memory(tree.spans[i])
}

/// The verdict's sentence.
pub fn out_of_memory(tree: &Tree<'_>, finding: &Finding<'_>, span: &Span) -> String {
    let service = tree.server_end(finding.last()).map_or(span, |s| tree.spans[s]).resource.service.clone();
    let evidence = full(with_samples(tree, finding.last()));
    match (says_out_of_memory(span), evidence) {
        (true, Some(full)) => format!("{service} ran out of GPU memory: {}; {full}", words(span)),
        (true, None) => format!("{service} ran out of GPU memory: {}", words(span)),
        (false, full) => {
            let full = full.unwrap_or_else(|| "its GPU was full".to_owned());
            format!("{service} failed without a reason, and {full}: it probably ran out of GPU memory")
        }
    }
}

fn words(span: &Span) -> &str {
    view::message(span)
        .or_else(|| view::text(span, "ktrdr.business_error.message"))
        .or_else(|| view::text(span, "operation.error"))
        .unwrap_or_default()
}

/// The end of a call that ran on the GPU: the server's, if it is here.
fn with_samples<'a>(tree: &Tree<'a>, i: usize) -> &'a Span {
    tree.spans[if tree.spans[i].kind == SpanKind::Client { tree.server_end(i).unwrap_or(i) } else { i }]
}

/// "GPU 0 (NVIDIA A100) was 98 % full (39.2 of 40.0 GiB) at the last sample".
fn full(span: &Span) -> Option<String> {
    let number = |key| view::int(span, key).filter(|n| *n > 0).map(|n| n as f64);
    let (used, limit) = (number("ktrdr.gpu.memory.usage.last")?, number("ktrdr.gpu.memory.limit")?);
    (used / limit >= FULL).then(|| {
        const GIB: f64 = 1_073_741_824.0;
        let percent = (used / limit * 100.0).floor();
        let (used, limit) = (used / GIB, limit / GIB);
        format!("{} was {percent:.0} % full ({used:.1} of {limit:.1} GiB) at the last sample", name(span))
    })
}

/// "GPU 0 (NVIDIA A100)".
fn name(span: &Span) -> String {
    let index = view::text(span, "gpu.device").unwrap_or("?");
    match view::text(span, "hw.name") {
        Some(name) => format!("GPU {index} ({name})"),
        None => format!("GPU {index}"),
    }
}

/// What the GPU has to do with work that was slow or that was to run on one: the kind of verdict, and a clause.
pub fn of_slow(span: &Span) -> Option<(Kind, String)> {
    if view::duration(span) < LONG_NS {
        return None;
    }
    let why = view::text(span, "ktrdr.gpu.expected").unwrap_or("a GPU was asked for");
    match view::text(span, "ktrdr.gpu.state")? {
        "no_process" => Some((
            Kind::GpuNotUsed,
            format!(
                "it did not run on a GPU: {why}, but no process of the worker was on any GPU of this host"
            ),
        )),
        "no_gpu" => Some((
            Kind::GpuNotUsed,
            format!("it did not run on a GPU: {why}, but this host has none that works"),
        )),
        "sampled" => {
            let (idle, seen) = (fraction(span, "ktrdr.gpu.idle")?, fraction(span, "ktrdr.gpu.coverage")?);
            let mean = fraction(span, "ktrdr.gpu.utilization.avg")? * 100.0;
            (idle >= IDLE && seen >= SEEN).then(|| {
                let idle = (idle * 100.0).floor();
                let text = format!(
                    "{} was idle for {idle:.0} % of that time (mean utilisation {mean:.0} %)",
                    name(span)
                );
                (Kind::GpuIdle, text)
            })
        }
        _ => None,
    }
}

fn fraction(span: &Span, key: &str) -> Option<f64> {
    match span.attributes.get(key)? {
        Value::Float(f) => Some(*f),
        _ => None,
    }
}
