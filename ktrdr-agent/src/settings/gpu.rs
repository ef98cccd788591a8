//! Sampling GPUs: the settings checked.

use std::path::PathBuf;
use std::time::Duration;

use super::values::GpuSource;
use super::{Bad, said};

/// Sampling GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Where samples come from.
    pub source: Source,
    /// Between samples while no observed process uses a GPU.
    pub idle: Duration,
    /// Between samples while one does.
    pub busy: Duration,
    /// Longest pause between looks for what is not there.
    pub retry: Duration,
}

/// Where samples come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// NVIDIA's library, at this path or where the system has it.
    Nvml(Option<PathBuf>),
    /// An invented device.
    Synthetic,
    /// A recorded file.
    Recording(PathBuf),
    /// None.
    Off,
}

impl Gpu {
    pub(super) fn resolve(said: &said::Gpu) -> Result<Self, Bad> {
        let within = |key: &str, value: Duration, least_ms: u64| {
            let least = Duration::from_millis(least_ms);
            if (least..=Duration::from_secs(60)).contains(&value) {
                return Ok(value);
            }
            Err(Bad::new(format!("gpu.{key}"), format!("must be from {least_ms}ms to 1m")))
        };
        let source = match said.source {
            GpuSource::Nvml => Source::Nvml((!said.library.is_empty()).then(|| said.library.clone().into())),
            GpuSource::Synthetic => Source::Synthetic,
            GpuSource::Recording if said.recording.is_empty() => {
                return Err(Bad::new("gpu.recording", "name the recorded file to take GPU samples from"));
            }
            GpuSource::Recording => Source::Recording(said.recording.clone().into()),
            GpuSource::Off => Source::Off,
        };
        if said.retry.0 < Duration::from_secs(1) {
            return Err(Bad::new("gpu.retry", "must be at least 1s"));
        }
        Ok(Self {
            source,
            // Drivers average utilisation over a sixth of a second at least: asked more often, they repeat themselves.
            idle: within("idle_period", said.idle_period.0, 100)?,
            busy: within("busy_period", said.busy_period.0, 50)?,
            retry: said.retry.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    #[test]
    fn bad_values_say_what_to_do() {
        let with = |text: &str| {
            let file = (std::path::Path::new("f"), text);
            Settings::from_text(Some(file), &[], &[]).map(|s| s.gpu).map_err(|e| e.to_string())
        };
        for (text, want) in [
            ("[gpu]\nbusy_period = '10ms'", "f:2: bad value for `gpu.busy_period`: must be from 50ms to 1m"),
            ("[gpu]\nidle_period = '2m'", "f:2: bad value for `gpu.idle_period`: must be from 100ms to 1m"),
            ("[gpu]\nretry = '10ms'", "f:2: bad value for `gpu.retry`: must be at least 1s"),
        ] {
            assert_eq!(with(text).unwrap_err(), want);
        }
        assert!(with("[gpu]\nsource = 'recording'").unwrap_err().contains("name the recorded file"));
        assert!(with("[gpu]\nsource = 'recording'\nrecording = 'a.ktrdr'").is_ok());
    }
}
