//! Samples of a recorded file, played again at their own pace, round and round. Processes have the numbers they had.

use std::time::Instant;

use super::{Inventory, Readings, Source, Trouble};
use crate::event::gpu::{GpuCondition, GpuReading, GpuSource, GpuStatus};
use crate::event::shell::ShellEvent;
use crate::event::{Body, Ns, decode};

/// A recording's samples.
#[derive(Debug)]
pub struct Recording {
    inventory: Inventory,
    readings: Vec<(Ns, Vec<GpuReading>)>,
    opened: Instant,
}

impl Recording {
    /// The GPU samples among these records.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let (mut last, mut readings) = (GpuStatus::default(), Vec::new());
        for record in records {
            let Ok(event) = decode(record) else { continue };
            let Body::Shell(fact) = event.body else { continue };
            match *fact {
                // Of several states the one with the most devices.
                ShellEvent::Gpu(s) if s.devices.len() >= last.devices.len() => last = s,
                ShellEvent::GpuSample(s) => readings.push((event.ts, s.devices)),
                _ => {}
            }
        }
        let inventory = Inventory { driver: last.driver, devices: last.devices };
        Self { inventory, readings, opened: Instant::now() }
    }

    /// What was read by the time `since` the beginning.
    fn at(&self, since: Ns) -> Option<&[GpuReading]> {
        let (first, last) = (self.readings.first()?.0, self.readings.last()?.0);
        let ts = first + since % (last - first + 1).max(1);
        let n = self.readings.partition_point(|(t, _)| *t <= ts);
        self.readings.get(n.checked_sub(1)?).map(|(_, r)| r.as_slice())
    }
}

impl Source for Recording {
    fn kind(&self) -> GpuSource {
        GpuSource::Recording
    }

    fn open(&mut self) -> Result<Inventory, Trouble> {
        if self.readings.is_empty() {
            let detail = "the recording has no GPU samples".to_owned();
            return Err(Trouble { condition: GpuCondition::NoDevice, detail });
        }
        self.opened = Instant::now();
        Ok(self.inventory.clone())
    }

    fn read(&mut self) -> Result<Readings, Trouble> {
        let since = u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(Readings { devices: self.at(since).unwrap_or_default().to_vec(), inventory: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::gpu::{GpuDevice, GpuSample};

    #[test]
    fn samples_are_played_in_their_order_and_again() {
        let device = GpuDevice { uuid: "GPU-a".into(), ..GpuDevice::default() };
        let status = GpuStatus { driver: "550".into(), devices: vec![device], ..GpuStatus::default() };
        let mut records = vec![ShellEvent::Gpu(status).to_record(5), b"junk".to_vec()];
        for (ts, utilization) in [(100, 10), (200, 20), (400, 30)] {
            let reading = GpuReading { utilization: Some(utilization), ..GpuReading::default() };
            let sample = GpuSample { period_ms: 1, devices: vec![reading] };
            records.push(ShellEvent::GpuSample(sample).to_record(ts));
        }
        let mut r = Recording::of(records.iter().map(Vec::as_slice));
        let at = |since| r.at(since).unwrap()[0].utilization.unwrap();
        assert_eq!([0, 99, 100, 299, 300, 301, 401].map(at), [10, 10, 20, 20, 30, 10, 20]);
        let inventory = r.open().unwrap();
        assert_eq!((inventory.driver.as_str(), inventory.devices[0].uuid.as_str()), ("550", "GPU-a"));
        assert_eq!(Recording::of([]).open().unwrap_err().condition, GpuCondition::NoDevice);
    }
}
