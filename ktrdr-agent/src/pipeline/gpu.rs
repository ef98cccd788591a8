//! GPU samples on their way into the record stream.

use std::collections::BTreeMap;

use super::replay;
use crate::event::Ns;
use crate::event::gpu::{GpuCondition, GpuSample, GpuSource, GpuStatus};
use crate::event::shell::{ProcessMeta, ShellEvent};
use crate::gpu::nvml::NvmlSource;
use crate::gpu::sampler::{self, Pace, Sampler};
use crate::gpu::{Inventory, Recording, Source, Synthetic, Trouble, Watched};
use crate::kernel::features::{Row, Status};
use crate::meta::Metadata;
use crate::settings::{self, Settings};

/// Pids of the driver whose process is remembered; more than use GPUs at once.
const MAX_PIDS: usize = 256;
/// For `check`: a driver that has to start a device first takes a few seconds.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Sampling, as far as the live loop is concerned.
pub struct Gpu {
    sampler: Option<Sampler>,
    settings: settings::Gpu,
    source: GpuSource,
    /// The driver's pids → the host's; 0 = not told.
    pids: BTreeMap<u32, u32>,
    /// Whether the driver's pids are the host's as they are.
    on_host: bool,
    watched: Watched,
    told: bool,
}

impl Gpu {
    /// Starts sampling, unless it is off. Without it the agent does everything else.
    pub fn start(settings: &Settings, meta: &Metadata) -> anyhow::Result<Self> {
        let watched = Watched::default();
        let pace = Pace { idle: settings.gpu.idle, busy: settings.gpu.busy, retry: settings.gpu.retry };
        let sampler = match make(&settings.gpu, &watched)? {
            None => None,
            Some(source) => match Sampler::start(pace, source) {
                Ok(sampler) => Some(sampler),
                Err(e) => {
                    tracing::warn!("no GPU samples: cannot start a thread: {e}");
                    None
                }
            },
        };
        Ok(Self {
            sampler,
            settings: settings.gpu.clone(),
            source: GpuSource::default(),
            pids: BTreeMap::new(),
            on_host: meta.on_host(),
            watched,
            told: false,
        })
    }

    /// A process showed up: the invented device shows those that train.
    pub fn process(&self, p: &ProcessMeta) {
        if matches!(self.settings.source, settings::gpu::Source::Synthetic)
            && p.service.contains("training")
            && !p.excluded
        {
            self.watched.add(p.tgid);
        }
    }

    /// What has come in: facts with their times, in the order in which the core has to know them.
    pub fn poll(&mut self, meta: &mut Metadata, observed: &dyn Fn(u32) -> bool) -> Vec<(Ns, ShellEvent)> {
        let Some(sampler) = &self.sampler else { return Vec::new() };
        let news: Vec<_> = sampler.poll().collect();
        let mut facts = Vec::new();
        for (ts, event) in news {
            match event {
                ShellEvent::Gpu(status) => {
                    self.say(&status);
                    self.source = status.source;
                    facts.push((ts, ShellEvent::Gpu(status)));
                }
                ShellEvent::GpuSample(mut sample) => {
                    self.name(&mut sample, meta);
                    let pids: Vec<u32> = pids(&sample).collect();
                    for pid in &pids {
                        facts.extend(meta.uses_gpu(*pid, ts).into_iter().map(|f| (ts, f)));
                    }
                    if let Some(s) = &self.sampler {
                        s.set_busy(pids.iter().any(|p| observed(*p)));
                    }
                    facts.push((ts, ShellEvent::GpuSample(sample)));
                }
                other => facts.push((ts, other)),
            }
        }
        if !facts.is_empty() {
            self.watched.keep(|pid| !meta.has_ended(pid));
        }
        facts
    }

    /// Samples that found no room on their way here.
    pub fn dropped(&self) -> u64 {
        self.sampler.as_ref().map_or(0, Sampler::dropped)
    }

    /// Replaces the driver's pids by the host's.
    fn name(&mut self, sample: &mut GpuSample, meta: &Metadata) {
        if self.on_host || self.source != GpuSource::Nvml {
            return;
        }
        for p in sample.devices.iter_mut().flat_map(|d| d.processes.iter_mut().flatten()) {
            if self.pids.len() >= MAX_PIDS && !self.pids.contains_key(&p.pid) {
                // Numbers are used again, so starting over does no harm.
                self.pids.clear();
            }
            p.pid = match self.pids.get(&p.pid) {
                Some(host) if *host != 0 && !meta.has_ended(*host) => *host,
                _ => {
                    let host = meta.gpu_pid(p.pid).unwrap_or(0);
                    self.pids.insert(p.pid, host);
                    host
                }
            };
        }
    }

    /// Says how things are: once, and whenever that changes.
    fn say(&mut self, status: &GpuStatus) {
        match status.condition {
            GpuCondition::Ok => {
                for d in &status.devices {
                    match d.trouble.is_empty() {
                        true => tracing::info!("GPU {}: {} ({})", d.index, d.name, d.uuid),
                        false => tracing::warn!("GPU {}: {}: not sampled: {}", d.index, d.name, d.trouble),
                    }
                }
            }
            // The rule on most hosts, and no trouble.
            GpuCondition::LibraryNotFound if !self.told => {
                tracing::info!("no GPU samples: {}", status.condition.describe());
                tracing::debug!("{}", status.detail);
            }
            condition => {
                let detail =
                    if status.detail.is_empty() { String::new() } else { format!(" ({})", status.detail) };
                tracing::warn!("no GPU samples: {}{detail}; looked for again", condition.describe());
            }
        }
        self.told = true;
    }
}

fn pids(sample: &GpuSample) -> impl Iterator<Item = u32> {
    sample.devices.iter().flat_map(|d| d.processes.iter().flatten()).map(|p| p.pid).filter(|p| *p != 0)
}

/// Makes a source, on the thread that is to use it.
type Make = Box<dyn FnOnce() -> Box<dyn Source> + Send>;

fn make(settings: &settings::Gpu, watched: &Watched) -> anyhow::Result<Option<Make>> {
    Ok(Some(match &settings.source {
        settings::gpu::Source::Off => return Ok(None),
        settings::gpu::Source::Nvml(path) => {
            let path = path.clone().map(Into::into);
            Box::new(move || Box::new(NvmlSource::new(path)))
        }
        settings::gpu::Source::Synthetic => {
            let watched = watched.clone();
            Box::new(move || Box::new(Synthetic::new(watched)))
        }
        settings::gpu::Source::Recording(path) => {
            let records = replay::read(path)?;
            let recording = Recording::of(records.iter().map(Vec::as_slice));
            Box::new(move || Box::new(recording))
        }
    }))
}

/// A row for `check`.
pub fn check(settings: &Settings) -> Row {
    let row = |status, detail, remedy| Row { name: "GPU".to_owned(), status, detail, remedy };
    let found = match make(&settings.gpu, &Watched::default()) {
        Ok(None) => return row(Status::Ok, "not sampled: gpu.source is off".to_owned(), None),
        Ok(Some(source)) => sampler::look(PATIENCE, source),
        Err(e) => return row(Status::Failed, format!("{e:#}"), Some("correct gpu.recording".to_owned())),
    };
    match found {
        Ok(inventory) => row(Status::Ok, devices(&inventory), None),
        Err(Trouble { condition: GpuCondition::LibraryNotFound, .. })
            if matches!(settings.gpu.source, settings::gpu::Source::Nvml(None)) =>
        {
            row(Status::Ok, "no NVIDIA library on this host: no GPU samples".to_owned(), None)
        }
        Err(trouble) => {
            let remedy = match trouble.condition {
                GpuCondition::LibraryNotFound => "correct gpu.library",
                GpuCondition::NoPermission => "let the agent use /dev/nvidiactl and /dev/nvidia*",
                GpuCondition::VersionMismatch => "reboot, or unload and load the nvidia module",
                GpuCondition::DriverNotLoaded => "`modprobe nvidia`, if this host has a GPU",
                _ => "see what `nvidia-smi` says",
            };
            row(Status::Warning, format!("no GPU samples: {trouble}"), Some(remedy.to_owned()))
        }
    }
}

fn devices(inventory: &Inventory) -> String {
    let names: Vec<String> = inventory
        .devices
        .iter()
        .map(|d| match d.trouble.as_str() {
            "" => format!("{} {}", d.index, d.name),
            trouble => format!("{} {} ({trouble})", d.index, d.name),
        })
        .collect();
    format!("driver {}: {}", inventory.driver, names.join(", "))
}
