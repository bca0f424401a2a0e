//! How long stages take: by timestamps of the device where it has them, else by the host's clock.

use std::time::Instant;

use ds4_model::{GraphKey, Probe, Result, Stage, Step};

use crate::backend::Wgpu;
use crate::device::{Buffer, Device};

/// Two timestamps around a compute pass, and where they are read from.
pub(crate) struct Timestamps {
    pub(crate) queries: wgpu::QuerySet,
    pub(crate) resolved: Buffer,
}

impl Timestamps {
    pub(crate) fn new(device: &Device) -> Result<Timestamps> {
        let descriptor = wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: 2 };
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Ok(Timestamps { queries: device.raw.create_query_set(&descriptor), resolved: device.alloc_raw(16, usage)? })
    }

    pub(crate) fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }
}

/// A probe that runs stages one by one and times them, or leaves a step whole and counts what it consists of.
pub struct StageClock {
    /// Seconds of the stages that have run.
    pub times: Vec<(Stage, f64)>,
    /// Whether steps are left whole.
    pub whole: bool,
    /// Of the last whole step: dispatches, submissions and seconds.
    pub counts: (usize, usize, f64),
    began: Instant,
}

impl Default for StageClock {
    fn default() -> StageClock {
        StageClock { times: Vec::new(), whole: false, counts: (0, 0, 0.0), began: Instant::now() }
    }
}

impl Probe<Wgpu> for StageClock {
    fn begin(&mut self, gpu: &mut Wgpu, key: Option<GraphKey>) -> Result<()> {
        gpu.begin(key);
        if gpu.device.abilities.timestamps {
            gpu.recorder.timestamps = if self.whole { None } else { Some(Timestamps::new(&gpu.device)?) };
        }
        self.began = Instant::now();
        Ok(())
    }

    fn after(&mut self, gpu: &mut Wgpu, stage: Stage, _: &Step<Buffer>, _: &mut Buffer) -> Result<()> {
        if !self.whole {
            let seconds = gpu.timed()?;
            self.times.push((stage, seconds.unwrap_or(self.began.elapsed().as_secs_f64())));
            self.began = Instant::now();
        } else if stage == Stage::Head {
            gpu.finish()?;
            self.counts = (gpu.recorder.dispatches, gpu.recorder.submits, self.began.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

impl Wgpu {
    /// Runs what is recorded; the seconds by the device's clock, if it has one.
    fn timed(&mut self) -> Result<Option<f64>> {
        self.release()?; // a dispatch that waits for another stage is this one's
        let recorded = self.recorder.open.is_some();
        self.finish()?;
        let Some(timestamps) = self.recorder.timestamps.as_ref() else { return Ok(None) };
        let mut ticks = [0u64; 2];
        if recorded {
            self.device.read(&self.landing, &timestamps.resolved, 0, bytemuck::cast_slice_mut(&mut ticks))?;
        }
        let nanoseconds = f64::from(self.device.queue.get_timestamp_period());
        Ok(Some(ticks[1].saturating_sub(ticks[0]) as f64 * nanoseconds * 1e-9))
    }
}
