//! Recording of a step: one compute pass, dispatches with their parameters, bind groups made when a pipeline first meets its
//! buffers. A step is one submission, or a few where the GPU may begin while the rest is still being recorded.

use std::collections::HashMap;

use bytemuck::Pod;
use ds4_model::{GraphKey, Result};

use crate::backend::Wgpu;
use crate::clock::Timestamps;
use crate::device::Buffer;
use crate::program::Kernel;

/// Bind groups by pipeline and buffers.
#[derive(Default)]
pub(crate) struct Recorder {
    groups: HashMap<(usize, Vec<u64>), wgpu::BindGroup>,
    /// Around the next pass, if it is to be timed.
    pub(crate) timestamps: Option<Timestamps>,
    pub(crate) open: Option<(wgpu::CommandEncoder, wgpu::ComputePass<'static>)>,
    /// A dispatch that another one may still join.
    pub(crate) held: Option<Held>,
    /// Dispatches of the pass so far.
    pending: usize,
    /// Dispatches and submissions of the last step.
    pub(crate) dispatches: usize,
    pub(crate) submits: usize,
}

/// A dispatch that waits.
pub(crate) struct Held {
    pub(crate) kernel: Kernel,
    pub(crate) grid: [u32; 3],
    pub(crate) args: Vec<u8>,
    pub(crate) buffers: Vec<Buffer>,
}

/// Most submissions of a step.
const SUBMITS: usize = 4;
/// Dispatches of the first submission; each has twice as many as the one before, for the GPU has to be busy for as long as the
/// next takes to record.
const FIRST: usize = 24;

impl Wgpu {
    /// Opens a step; only one in which every row is of another sequence has a key.
    pub(crate) fn begin(&mut self, key: Option<GraphKey>) {
        self.one_row_each = key.is_some();
        self.recorder.dispatches = 0;
        self.recorder.submits = 0;
    }

    /// Enqueues a kernel over `grid` workgroups; `buffers` in the order of its bindings.
    pub(crate) fn dispatch<A: Pod>(
        &mut self,
        kernel: Kernel,
        grid: [u32; 3],
        args: &A,
        buffers: &[&Buffer],
    ) -> Result<()> {
        self.dispatch_bytes(kernel, grid, bytemuck::bytes_of(args), buffers)
    }

    /// The same with parameters as bytes; a kernel without any takes none.
    pub(crate) fn dispatch_bytes(
        &mut self,
        kernel: Kernel,
        grid: [u32; 3],
        args: &[u8],
        buffers: &[&Buffer],
    ) -> Result<()> {
        self.release()?;
        if grid.contains(&0) {
            return Ok(());
        }
        if let Some(most) = grid.iter().find(|&&n| n > 65_535) {
            return Err(self.device.error(format!("{}: {most} workgroups, expected at most 65535", kernel.entry)));
        }
        let pipeline = self.program.pipeline(&self.device, &self.shape, kernel)?;
        let key = (pipeline.id, buffers.iter().map(|buffer| buffer.id).collect());
        let recorder = &mut self.recorder;
        let device = &self.device.raw;
        let group = recorder.groups.entry(key).or_insert_with(|| {
            let entries: Vec<wgpu::BindGroupEntry<'_>> = (0..)
                .zip(buffers)
                .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.raw.as_entire_binding() })
                .collect();
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(kernel.entry),
                layout: &pipeline.layout,
                entries: &entries,
            })
        });
        let (_, pass) = recorder.open.get_or_insert_with(|| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let timestamp_writes = recorder.timestamps.as_ref().map(Timestamps::writes);
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            let pass = encoder.begin_compute_pass(&descriptor).forget_lifetime();
            (encoder, pass)
        });
        pass.set_pipeline(&pipeline.raw);
        pass.set_bind_group(0, &*group, &[]);
        if !args.is_empty() {
            pass.set_immediates(0, args);
        }
        pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        recorder.pending += 1;
        recorder.dispatches += 1;
        if recorder.submits + 1 < SUBMITS && recorder.pending >= FIRST << recorder.submits {
            self.flush()?;
        }
        Ok(())
    }

    /// Lets a dispatch wait for one that may join it: for the next one at most.
    pub(crate) fn hold(&mut self, held: Held) -> Result<()> {
        self.release()?;
        self.recorder.held = Some(held);
        Ok(())
    }

    /// Records what waits.
    pub(crate) fn release(&mut self) -> Result<()> {
        let Some(held) = self.recorder.held.take() else { return Ok(()) };
        let buffers: Vec<&Buffer> = held.buffers.iter().collect();
        self.dispatch_bytes(held.kernel, held.grid, &held.args, &buffers)
    }

    /// Hands what is recorded to the queue.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.release()?;
        if let Some((mut encoder, pass)) = self.recorder.open.take() {
            drop(pass);
            if let Some(timestamps) = &self.recorder.timestamps {
                encoder.resolve_query_set(&timestamps.queries, 0..2, &timestamps.resolved.raw, 0);
            }
            self.device.queue.submit([encoder.finish()]);
            self.recorder.pending = 0;
            self.recorder.submits += 1;
        }
        self.device.check()
    }

    /// Throws away what is recorded: a stage has failed.
    pub(crate) fn discard(&mut self) {
        self.recorder.held = None;
        if let Some((encoder, pass)) = self.recorder.open.take() {
            drop(pass);
            drop(encoder);
            self.recorder.pending = 0;
        }
    }
}
