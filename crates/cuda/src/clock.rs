//! How long each stage takes on the card: an event behind every stage of steps that run kernel by kernel. The stream is held up
//! while a step is enqueued, so that what is measured is the card and not the host.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Probe, Result, Stage, Step};

use crate::backend::Cuda;
use crate::device::{Buffer, Event};
use crate::launch::Grid;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct HoldArgs {
    nanoseconds: u64,
}
const _: () = assert!(size_of::<HoldArgs>() == 8);

/// Longer than a step takes to enqueue.
const HOLD_NANOSECONDS: u64 = 15_000_000;

/// A probe that takes the time of every stage.
#[derive(Default)]
pub struct StageClock {
    marks: Vec<(Option<Stage>, Event)>,
}

impl StageClock {
    /// Stages in the order they ran since the last call, with the seconds each took. Waits for them.
    ///
    /// # Errors
    /// What the device says.
    pub fn take(&mut self) -> Result<Vec<(Stage, f64)>> {
        let marks = std::mem::take(&mut self.marks);
        if let Some((_, last)) = marks.last() {
            last.wait()?;
        }
        let mut times = Vec::with_capacity(marks.len());
        for pair in marks.windows(2) {
            if let Some(stage) = pair[1].0 {
                times.push((stage, pair[1].1.seconds_since(&pair[0].1)?));
            }
        }
        Ok(times)
    }

    fn mark(&mut self, cuda: &Cuda, stage: Option<Stage>) -> Result<()> {
        let event = Event::new(&cuda.device)?;
        event.record()?;
        self.marks.push((stage, event));
        Ok(())
    }
}

impl Cuda {
    /// Bytes a second that a copy inside the card's memory reads and writes together.
    ///
    /// # Errors
    /// Too little free memory, or what the device says.
    pub fn copy_bandwidth(&mut self) -> Result<f64> {
        const BYTES: usize = 1 << 30;
        const PASSES: usize = 4;
        let buffer = self.device.alloc(2 * BYTES)?;
        let (start, end) = (Event::new(&self.device)?, Event::new(&self.device)?);
        self.device.copy(&buffer, 0, BYTES, BYTES)?;
        start.record()?;
        for _ in 0..PASSES {
            self.device.copy(&buffer, 0, BYTES, BYTES)?;
        }
        end.record()?;
        end.wait()?;
        Ok((2 * PASSES * BYTES) as f64 / end.seconds_since(&start)?)
    }
}

impl Probe<Cuda> for StageClock {
    fn after(&mut self, cuda: &mut Cuda, stage: Stage, _: &Step<Buffer>, _: &mut Buffer) -> Result<()> {
        self.mark(cuda, Some(stage))?;
        if stage == Stage::Embed {
            // The first stage is over before the host has enqueued the rest: its time says nothing.
            self.marks.pop();
            cuda.launch("hold", Grid::new(1, 1, 1), &HoldArgs { nanoseconds: HOLD_NANOSECONDS })?;
            self.mark(cuda, None)?;
        }
        Ok(())
    }
}
