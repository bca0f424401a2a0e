//! One GPU: context, stream, memory. Every call that can fail says which card and what the driver said.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as A};
use ds4_model::{Error, Result};

/// A GPU with its primary context and the one stream everything runs on.
pub(crate) struct Device {
    pub(crate) name: String,
    /// Compute capability, major and minor.
    pub(crate) capability: (u32, u32),
    /// Multiprocessors.
    pub(crate) sms: u32,
    pub(crate) stream: sys::CUstream,
    context: sys::CUcontext,
    handle: sys::CUdevice,
}

// SAFETY: contexts and streams may be used from any thread; calls make the context current first.
unsafe impl Send for Device {}
// SAFETY: as above; the driver serialises calls on one stream.
unsafe impl Sync for Device {}

/// Shared memory of a block that the kernels are laid out for: Hopper's (H100, H200) and its large successors'.
const SHARED: usize = 227 << 10;

/// A card as the driver presents it, before anything runs there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// As in "NVIDIA H200".
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// What `nvidia-smi` knows it by, whatever its number is here.
    pub uuid: String,
}

/// The card with this number, if models can run on it: its driver and the kernels' compiler are there, and it is not too old.
///
/// # Errors
/// The message says what is missing and what to do.
pub fn available(ordinal: usize) -> Result<Card> {
    let (_, card) = find(ordinal)?;
    if crate::program::has_compiler() { Ok(card) } else { Err(failed(ordinal, crate::program::NO_COMPILER.to_owned())) }
}

/// Whether this machine shows any card, usable or not: without one nobody expects it to be used.
pub fn has_cards() -> bool {
    let none = DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE);
    has_driver() && result::init().err() != Some(none)
}

fn has_driver() -> bool {
    // SAFETY: looks for a library by name; nothing runs.
    unsafe { sys::is_culib_present() }
}

/// Bytes of its memory that nobody uses, and all of them.
///
/// # Errors
/// As [`available`].
pub fn memory(ordinal: usize) -> Result<(u64, u64)> {
    let (free, total) = Device::open(ordinal)?.memory()?;
    Ok((free as u64, total as u64))
}

fn failed(ordinal: usize, what: String) -> Error {
    Error::Device { device: format!("cuda:{ordinal}"), what }
}

fn find(ordinal: usize) -> Result<(sys::CUdevice, Card)> {
    if !has_driver() {
        let what = "no NVIDIA driver found: install one from nvidia.com/drivers, or use --cpu";
        return Err(failed(ordinal, what.to_owned()));
    }
    let said = |doing: &str, e: DriverError| failed(ordinal, format!("{doing}: {}", describe(e)));
    result::init().map_err(|e| said("the driver does not start", e))?;
    let count = result::device::get_count().map_err(|e| said("cannot count cards", e))?;
    if ordinal >= count as usize {
        return Err(failed(ordinal, format!("the driver shows {count} cards, counted from 0")));
    }
    let handle = result::device::get(ordinal as i32).map_err(|e| said("cannot open the card", e))?;
    let name = result::device::get_name(handle).map_err(|e| said("cannot ask for its name", e))?;
    let attribute = |attribute| {
        // SAFETY: the handle comes from the driver.
        unsafe { result::device::get_attribute(handle, attribute) }.map_err(|e| said("cannot ask for an attribute", e))
    };
    let major = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32;
    let minor = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32;
    let shared = attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize;
    if shared < SHARED {
        let has =
            format!("{name} (compute capability {major}.{minor}) has {} KB of shared memory for a block", shared >> 10);
        return Err(failed(ordinal, format!("{has}, expected {} KB, as H100 and H200 have: use --cpu", SHARED >> 10)));
    }
    let uuid = result::device::get_uuid(handle).map_err(|e| said("cannot ask for its identity", e))?;
    Ok((handle, Card { name, capability: (major, minor), uuid: spelled(uuid.bytes.map(|byte| byte as u8)) }))
}

/// An identity as tools write it.
fn spelled(uuid: [u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(uuid));
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

impl Device {
    /// Opens card `ordinal`.
    ///
    /// # Errors
    /// No driver, no such card, or one that is too old; the message says what to do.
    pub(crate) fn open(ordinal: usize) -> Result<Arc<Device>> {
        let (handle, Card { name, capability, .. }) = find(ordinal)?;
        let said = |doing: &str, e: DriverError| failed(ordinal, format!("{doing}: {}", describe(e)));
        let attribute = |attribute| {
            // SAFETY: the handle comes from the driver.
            unsafe { result::device::get_attribute(handle, attribute) }
                .map_err(|e| said("cannot ask for an attribute", e))
        };
        let sms = attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32;
        // SAFETY: the handle comes from the driver; the context is released in `drop`.
        let context = unsafe { result::primary_ctx::retain(handle) }.map_err(|e| said("cannot use the card", e))?;
        // SAFETY: the context was just made.
        unsafe { result::ctx::set_current(context) }.map_err(|e| said("cannot use the card", e))?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|e| said("cannot make a stream", e))?;
        Ok(Arc::new(Device { name, capability, sms, stream, context, handle }))
    }

    /// Whether kernels for Hopper's own matrix instructions run here.
    pub(crate) fn has_wgmma(&self) -> bool {
        self.capability == (9, 0)
    }

    /// An error of this card.
    pub(crate) fn error(&self, what: impl Into<String>) -> Error {
        Error::Device { device: self.name.clone(), what: what.into() }
    }

    /// Turns a driver's result into ours.
    pub(crate) fn check<T>(&self, doing: &str, result: std::result::Result<T, DriverError>) -> Result<T> {
        result.map_err(|e| self.error(format!("{doing}: {}", describe(e))))
    }

    /// Makes the card's context current on this thread.
    pub(crate) fn bind(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        self.check("cannot use the card", unsafe { result::ctx::set_current(self.context) })
    }

    /// Waits for everything enqueued.
    pub(crate) fn synchronize(&self) -> Result<()> {
        // SAFETY: the stream lives as long as `self`.
        self.check("a kernel failed", unsafe { result::stream::synchronize(self.stream) })
    }

    /// Free and total memory, bytes.
    pub(crate) fn memory(&self) -> Result<(usize, usize)> {
        self.bind()?;
        self.check("cannot ask for its memory", result::mem_get_info())
    }

    /// Memory that holds zeros.
    pub(crate) fn alloc(self: &Arc<Self>, bytes: usize) -> Result<Buffer> {
        self.bind()?;
        let size = bytes.max(16);
        // SAFETY: the memory is zeroed before anyone reads it and freed by the buffer.
        let ptr = unsafe { result::malloc_sync(size) }.map_err(|e| {
            let free = result::mem_get_info().map_or(0, |(free, _)| free);
            self.error(format!(
                "cannot allocate {:.2} GB, {:.2} GB are free: {}; choose a smaller --ctx or fewer sequences",
                size as f64 / 1e9,
                free as f64 / 1e9,
                describe(e)
            ))
        })?;
        let buffer = Buffer { ptr, bytes, device: Arc::clone(self) };
        // SAFETY: the allocation has this size.
        self.check("cannot clear memory", unsafe { result::memset_d8_async(ptr, 0, size, self.stream) })?;
        Ok(buffer)
    }

    /// Copies from the host; `src` may be reused at once. Ordered before everything enqueued later.
    pub(crate) fn write(&self, dst: &Buffer, at: usize, src: &[u8]) -> Result<()> {
        assert!(at + src.len() <= dst.bytes, "a write past the end of a buffer");
        self.bind()?;
        // SAFETY: the range lies in the buffer; the driver copies pageable memory before it returns.
        self.check("cannot write", unsafe { result::memcpy_htod_async(dst.ptr + at as u64, src, self.stream) })
    }

    /// Waits for everything enqueued, then copies to the host.
    pub(crate) fn read(&self, src: &Buffer, at: usize, dst: &mut [u8]) -> Result<()> {
        assert!(at + dst.len() <= src.bytes, "a read past the end of a buffer");
        self.bind()?;
        // SAFETY: the range lies in the buffer, and the stream is waited for before `dst` is used.
        self.check("cannot read", unsafe { result::memcpy_dtoh_async(dst, src.ptr + at as u64, self.stream) })?;
        self.synchronize()
    }

    /// Copies inside a buffer, where the ranges do not overlap.
    pub(crate) fn copy(&self, buffer: &Buffer, from: usize, at: usize, len: usize) -> Result<()> {
        assert!(from.max(at) + len <= buffer.bytes, "a copy past the end of a buffer");
        self.bind()?;
        let (to, from) = (buffer.ptr + at as u64, buffer.ptr + from as u64);
        // SAFETY: both ranges lie in the buffer.
        self.check("cannot copy", unsafe { result::memcpy_dtod_async(to, from, len, self.stream) })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: nothing uses the stream and the context after this: buffers hold the device.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.handle);
        }
    }
}

/// Device memory.
pub struct Buffer {
    ptr: sys::CUdeviceptr,
    bytes: usize,
    device: Arc<Device>,
}

impl Buffer {
    /// Address on the device.
    pub(crate) fn ptr(&self) -> u64 {
        self.ptr
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes on {}", self.bytes, self.device.name)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: the allocation is this buffer's own; freeing waits for kernels that use it.
        let _ = unsafe { result::free_sync(self.ptr) };
    }
}

/// Page-locked host memory that the copy engines reach.
pub(crate) struct Pinned {
    ptr: *mut c_void,
    bytes: usize,
    device: Arc<Device>,
}

// SAFETY: plain memory.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(crate) fn new(device: &Arc<Device>, bytes: usize) -> Result<Pinned> {
        device.bind()?;
        // SAFETY: freed in `drop`.
        let ptr = device.check("cannot lock host memory", unsafe { result::malloc_host(bytes, 0) })?;
        // SAFETY: the allocation has this size.
        unsafe { ptr.cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned { ptr, bytes, device: Arc::clone(device) })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: initialised in `new`; nobody else holds it.
        unsafe { std::slice::from_raw_parts(self.ptr.cast(), self.bytes) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.cast(), self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: the allocation is this value's own.
        let _ = unsafe { result::free_host(self.ptr) };
    }
}

/// A point on the stream that the host can wait for, or that is compared with another.
pub(crate) struct Event {
    handle: sys::CUevent,
    device: Arc<Device>,
}

// SAFETY: events may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    pub(crate) fn new(device: &Arc<Device>) -> Result<Event> {
        device.bind()?;
        let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
        let handle = device.check("cannot make an event", result::event::create(flags))?;
        Ok(Event { handle, device: Arc::clone(device) })
    }

    pub(crate) fn record(&self) -> Result<()> {
        // SAFETY: event and stream are alive.
        self.device.check("cannot record an event", unsafe { result::event::record(self.handle, self.device.stream) })
    }

    pub(crate) fn wait(&self) -> Result<()> {
        // SAFETY: the event is alive.
        self.device.check("a kernel failed", unsafe { result::event::synchronize(self.handle) })
    }

    /// Seconds from `earlier`; both have happened.
    pub(crate) fn seconds_since(&self, earlier: &Event) -> Result<f64> {
        // SAFETY: both events are alive.
        let ms = unsafe { result::event::elapsed(earlier.handle, self.handle) };
        Ok(f64::from(self.device.check("cannot compare events", ms)?) / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: the event is this value's own.
        let _ = unsafe { result::event::destroy(self.handle) };
    }
}

/// The driver's own words for an error.
pub(crate) fn describe(e: DriverError) -> String {
    let text = e.error_string().map(|s| s.to_string_lossy().into_owned());
    text.unwrap_or_else(|_| format!("error {}", e.0 as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_spelled_as_tools_do() {
        let bytes = std::array::from_fn(|i| 16 * i as u8 + 1);
        assert_eq!(spelled(bytes), "GPU-01112131-4151-6171-8191-a1b1c1d1e1f1");
    }
}
