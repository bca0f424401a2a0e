//! Steps recorded once and replayed: one driver call in place of hundreds.

use std::sync::Arc;

use cudarc::driver::{result, sys};
use ds4_model::Result;

use crate::device::Device;

/// A recorded step.
pub(crate) struct Graph {
    exec: sys::CUgraphExec,
    device: Arc<Device>,
}

// SAFETY: graphs may be launched from any thread with the context current.
unsafe impl Send for Graph {}

/// Begins recording: what is enqueued from now on does not run.
pub(crate) fn begin(device: &Device) -> Result<()> {
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the stream is alive and not yet capturing.
    device.check("cannot record a step", unsafe { result::stream::begin_capture(device.stream, mode) })
}

/// Ends recording and makes the step ready to be replayed.
pub(crate) fn end(device: &Arc<Device>) -> Result<Graph> {
    // SAFETY: the stream is capturing.
    let graph = device.check("cannot record a step", unsafe { result::stream::end_capture(device.stream) })?;
    // SAFETY: the graph was just recorded; the executable is freed in `drop`.
    let exec = unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) };
    // SAFETY: an executable graph does not need the recording.
    let _ = unsafe { result::graph::destroy(graph) };
    Ok(Graph { exec: device.check("cannot build a graph", exec)?, device: Arc::clone(device) })
}

impl Graph {
    /// Enqueues the whole step.
    pub(crate) fn launch(&self) -> Result<()> {
        // SAFETY: graph and stream are alive.
        self.device.check("cannot replay a step", unsafe { result::graph::launch(self.exec, self.device.stream) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: the graph is this value's own.
        let _ = unsafe { result::graph::exec_destroy(self.exec) };
    }
}
