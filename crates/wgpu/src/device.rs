//! One adapter: what it can do, its device and queue, memory, and what went wrong on it. wgpu reports errors to a handler, later
//! than they arise; here they are kept and handed out as the error of the next call that can have one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ds4_model::{Error, Result};
use wgpu::{CooperativeMatrixProperties, CooperativeScalarType, Features, Limits};

use crate::program::{Matrices, Paths};

/// How a GPU is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// Linux, Windows and others.
    Vulkan,
    /// Apple's machines.
    Metal,
}

impl Api {
    /// As flags and messages say it.
    pub fn name(self) -> &'static str {
        match self {
            Api::Vulkan => "vulkan",
            Api::Metal => "metal",
        }
    }

    fn backends(self) -> wgpu::Backends {
        match self {
            Api::Vulkan => wgpu::Backends::VULKAN,
            Api::Metal => wgpu::Backends::METAL,
        }
    }
}

/// An adapter as its driver presents it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// As in "NVIDIA H200".
    pub name: String,
    /// Driver and its version.
    pub driver: String,
    /// How it is reached.
    pub api: Api,
    /// A processor that imitates a GPU: right, but slower than the CPU backend.
    pub software: bool,
    /// What buffers lie in.
    pub memory: Memory,
    /// Least and most lanes of a subgroup.
    pub subgroups: (u32, u32),
    /// Whether shaders calculate with float16.
    pub f16: bool,
    /// Sizes of the float16 products with float32 sums that a subgroup makes at once, as in "16x16x16".
    pub matrices: Vec<String>,
}

/// Memory of an adapter, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What this program may have of it now; all of it where the driver does not say.
    pub free: u64,
    /// Most of it that shaders see as one buffer.
    pub piece: u64,
}

/// Whether the system shows a GPU at all. To ask Vulkan in vain takes time, and its drivers speak on standard error.
pub fn has_gpus() -> bool {
    let is_render_node = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("renderD"))
    };
    !cfg!(target_os = "linux")
        || std::fs::read_dir("/dev/dri").is_ok_and(|mut nodes| nodes.any(is_render_node))
        || ["/dev/nvidiactl", "/dev/dxg"].iter().any(|node| std::path::Path::new(node).exists())
}

/// Every adapter of an API, in the order of the driver.
pub fn adapters(api: Api) -> Vec<Gpu> {
    found(api).iter().map(|adapter| described(api, adapter)).collect()
}

/// The adapter with this number, if models can run on it.
///
/// # Errors
/// None there, or one without what the shaders need; the message says what to do.
pub fn available(api: Api, ordinal: usize) -> Result<Gpu> {
    let adapter = pick(api, ordinal)?;
    let gpu = described(api, &adapter);
    needs(&adapter).map_err(|what| failed(&gpu.name, what))?;
    Ok(gpu)
}

fn found(api: Api) -> Vec<wgpu::Adapter> {
    if !wgpu::Instance::enabled_backend_features().contains(api.backends()) {
        return Vec::new();
    }
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = api.backends();
    // Validation layers are for the tests of drivers; software adapters have to be asked for.
    descriptor.flags = wgpu::InstanceFlags::ALLOW_UNDERLYING_NONCOMPLIANT_ADAPTER;
    let instance = wgpu::Instance::new(descriptor);
    pollster::block_on(instance.enumerate_adapters(api.backends()))
}

fn described(api: Api, adapter: &wgpu::Adapter) -> Gpu {
    let info = adapter.get_info();
    let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
    let mixed = |of: &CooperativeMatrixProperties| {
        (of.ab_type, of.cr_type) == (CooperativeScalarType::F16, CooperativeScalarType::F32)
    };
    let size = |of: CooperativeMatrixProperties| format!("{}x{}x{}", of.m_size, of.n_size, of.k_size);
    let mut matrices: Vec<String> =
        adapter.cooperative_matrix_properties().into_iter().filter(mixed).map(size).collect();
    matrices.dedup();
    Gpu {
        name: info.name,
        driver,
        api,
        software: info.device_type == wgpu::DeviceType::Cpu,
        memory: memory(adapter),
        subgroups: (info.subgroup_min_size, info.subgroup_max_size),
        f16: adapter.features().contains(Features::SHADER_F16),
        matrices,
    }
}

/// What wgpu itself does not tell: the driver is asked.
fn memory(adapter: &wgpu::Adapter) -> Memory {
    let (total, free) = heap(adapter).unwrap_or_default();
    Memory { total, free, piece: most_bound(&adapter.limits()) }
}

/// Bytes of the heap that buffers go to, which is the largest of the GPU's own, and how many this program may have.
#[cfg(not(target_vendor = "apple"))]
fn heap(adapter: &wgpu::Adapter) -> Option<(u64, u64)> {
    use ash::{ext, vk};
    // SAFETY: the handles are asked and left as they are; `adapter` outlives them.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let (instance, device) = (hal.shared_instance(), hal.raw_physical_device());
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut found = vk::PhysicalDeviceMemoryProperties2::default();
    let told = instance.instance_api_version() >= vk::API_VERSION_1_1
        && hal.physical_device_capabilities().supports_extension(ext::memory_budget::NAME);
    if told {
        found = found.push_next(&mut budget);
        // SAFETY: the device is one of this instance, whose version has the call.
        unsafe { instance.raw_instance().get_physical_device_memory_properties2(device, &mut found) };
    } else {
        // SAFETY: the device is one of this instance.
        found.memory_properties = unsafe { instance.raw_instance().get_physical_device_memory_properties(device) };
    }
    let heaps = found.memory_properties;
    let own = |heap: &vk::MemoryHeap| (heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL), heap.size);
    let (at, heap) = heaps.memory_heaps_as_slice().iter().enumerate().max_by_key(|(_, heap)| own(heap))?;
    let left = budget.heap_budget[at].saturating_sub(budget.heap_usage[at]);
    Some((heap.size, if told { left } else { heap.size }))
}

/// Bytes that the GPU can use well, and how many of them are left to this program.
#[cfg(target_vendor = "apple")]
fn heap(adapter: &wgpu::Adapter) -> Option<(u64, u64)> {
    use objc2_metal::MTLDevice as _;
    // SAFETY: the handle is asked and left as it is; `adapter` outlives it.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Metal>() }?;
    let device = hal.raw_device();
    let total = device.recommendedMaxWorkingSetSize();
    Some((total, total.saturating_sub(device.currentAllocatedSize() as u64)))
}

/// Most bytes of a storage binding, a multiple of 256.
fn most_bound(limits: &Limits) -> u64 {
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) & !255
}

fn failed(device: &str, what: impl Into<String>) -> Error {
    Error::Device { device: device.to_owned(), what: what.into() }
}

fn pick(api: Api, ordinal: usize) -> Result<wgpu::Adapter> {
    let mut all = found(api);
    let device = format!("{}:{ordinal}", api.name());
    if all.is_empty() {
        let what = match api {
            Api::Vulkan => "no Vulkan adapter found: install the GPU's driver with its part for Vulkan, or: use --cpu",
            Api::Metal => "no Metal adapter found, which Macs alone have: use --cpu",
        };
        return Err(failed(&device, what));
    }
    if ordinal >= all.len() {
        let what = format!("the driver shows {} adapters, counted from 0", all.len());
        return Err(failed(&device, what));
    }
    Ok(all.swap_remove(ordinal))
}

/// Bytes of parameters that a dispatch takes along.
const IMMEDIATES: u32 = 64;
/// Bindings of the largest shader whose workgroups share memory; the others take fewer.
const FUSED_BUFFERS: u32 = 16;
/// Workgroup memory of the largest shader that every adapter has to take.
const WORKGROUP: u32 = 32 << 10;

/// Whether the adapter has what no shader can do without, or what is missing.
fn needs(adapter: &wgpu::Adapter) -> std::result::Result<(), String> {
    let limits = adapter.limits();
    if !adapter.features().contains(Features::IMMEDIATES) || limits.max_immediate_size < IMMEDIATES {
        return Err(format!("takes no {IMMEDIATES} bytes of immediate data: use --cpu"));
    }
    let rules = [
        (limits.max_compute_workgroup_storage_size, WORKGROUP, "bytes of workgroup memory"),
        (limits.max_compute_invocations_per_workgroup, 256, "invocations of a workgroup"),
        (limits.max_storage_buffers_per_shader_stage, 10, "storage buffers"),
        (limits.max_compute_workgroups_per_dimension, 65_535, "workgroups of a dimension"),
    ];
    match rules.into_iter().find(|(found, least, _)| found < least) {
        Some((found, least, what)) => Err(format!("{found} {what}, expected {least}: use --cpu")),
        None => Ok(()),
    }
}

/// Workgroup memory of the largest shader where there is more of it.
const ROOM: u32 = 48 << 10;

/// What shaders of cooperative matrices ask for.
const MATRICES: Features =
    Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(Features::SHADER_F16).union(Features::SUBGROUP);

/// Invocations of a subgroup, if that is one number.
fn lanes(api: Api, info: &wgpu::AdapterInfo) -> Option<usize> {
    match (info.subgroup_min_size, info.subgroup_max_size) {
        // wgpu gives Metal's range for all Macs; every GPU of Apple's own has 32.
        _ if api == Api::Metal => info.name.starts_with("Apple").then_some(32),
        (least, most) => (least == most).then_some(most as usize),
    }
}

/// The largest squares of float16 that a subgroup multiplies and adds up in float32.
fn matrices(api: Api, adapter: &wgpu::Adapter) -> Option<Matrices> {
    let lanes = lanes(api, &adapter.get_info()).filter(|lanes| [8, 16, 32].contains(lanes))?;
    let mixed = (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
    let squares = adapter.cooperative_matrix_properties().into_iter().filter(|p| {
        (p.ab_type, p.cr_type) == mixed && (p.n_size, p.k_size) == (p.m_size, p.m_size) && [8, 16].contains(&p.m_size)
    });
    let side = squares.map(|p| p.m_size as usize).max().filter(|_| adapter.features().contains(MATRICES))?;
    let roomy = adapter.limits().max_compute_workgroup_storage_size >= ROOM;
    Some(Matrices { side, lanes, scalars: api == Api::Metal, roomy })
}

/// What shaders and layouts follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    pub(crate) paths: Paths,
    /// Workgroups of a dispatch can read what others of it have written.
    pub(crate) coherent: bool,
    /// Compute passes can be timed.
    pub(crate) timestamps: bool,
    /// Most bytes of a storage binding, a multiple of 256.
    pub(crate) binding: u64,
    /// Most bytes of weights in a binding.
    pub(crate) weights: u64,
}

/// An open adapter.
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) raw: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) abilities: Abilities,
    /// A processor that imitates a GPU.
    pub(crate) software: bool,
    fault: Arc<Mutex<Option<String>>>,
}

/// Memory of a device.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub(crate) raw: wgpu::Buffer,
    pub(crate) bytes: usize,
    /// Tells buffers apart for as long as the program runs.
    pub(crate) id: u64,
    /// The file whose pages it consists of.
    _file: Option<Bytes>,
}

/// What a test may take away from an adapter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Without {
    pub(crate) subgroups: bool,
    pub(crate) matrices: bool,
    pub(crate) coherent: bool,
    pub(crate) weights: Option<u64>,
}

impl Device {
    pub(crate) fn open(api: Api, ordinal: usize, without: Without) -> Result<Device> {
        let adapter = pick(api, ordinal)?;
        let info = adapter.get_info();
        let name = info.name.clone();
        needs(&adapter).map_err(|what| failed(&name, what))?;
        let has = adapter.features();
        let useful = Features::SUBGROUP | Features::MEMORY_DECORATION_COHERENT | Features::TIMESTAMP_QUERY;
        let wanted = Features::IMMEDIATES | (has & useful);
        let timestamps = has.contains(Features::TIMESTAMP_QUERY);
        let coherent = api == Api::Vulkan
            && has.contains(Features::MEMORY_DECORATION_COHERENT)
            && adapter.limits().max_storage_buffers_per_shader_stage >= FUSED_BUFFERS
            && !without.coherent;
        let limits = Limits { max_immediate_size: IMMEDIATES, ..adapter.limits() };
        let subgroups = has.contains(Features::SUBGROUP) && lanes(api, &info) == Some(32) && !without.subgroups;
        let matrices = if without.matrices { None } else { matrices(api, &adapter) };
        let binding = most_bound(&limits);
        let weights = without.weights.unwrap_or(binding).min(binding) & !255;
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: None,
            required_features: if matrices.is_some() { wanted | MATRICES } else { wanted },
            required_limits: limits,
            // SAFETY: cooperative matrices are experimental; the shaders load and store them inside arrays of their own.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        });
        let (device, queue) =
            pollster::block_on(request).map_err(|e| failed(&name, format!("cannot be opened: {e}: use --cpu")))?;
        let fault = Arc::new(Mutex::new(None));
        let (errors, losses) = (Arc::clone(&fault), Arc::clone(&fault));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| keep(&errors, describe(&error))));
        device.set_device_lost_callback(move |_, message| keep(&losses, lost(&message)));
        let abilities = Abilities { paths: Paths { subgroups, matrices }, coherent, timestamps, binding, weights };
        let software = info.device_type == wgpu::DeviceType::Cpu;
        Ok(Device { name, raw: device, queue, abilities, software, fault })
    }

    /// An error of this device.
    pub(crate) fn error(&self, what: impl Into<String>) -> Error {
        failed(&self.name, what)
    }

    /// What has gone wrong since the last call.
    pub(crate) fn check(&self) -> Result<()> {
        match self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(what) => Err(self.error(what)),
            None => Ok(()),
        }
    }

    /// Zeroed memory that a binding can hold as a whole.
    pub(crate) fn alloc(&self, bytes: usize) -> Result<Buffer> {
        let size = (bytes.max(16) as u64).next_multiple_of(16);
        if size > self.abilities.binding {
            let most = self.abilities.binding;
            let what =
                format!("{size} bytes in one piece, the adapter binds at most {most}: use a shorter context (-c)");
            return Err(self.error(what));
        }
        self.alloc_raw(size, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST)
    }

    pub(crate) fn alloc_raw(&self, size: u64, usage: wgpu::BufferUsages) -> Result<Buffer> {
        let raw =
            self.raw.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        self.check()?;
        Ok(Buffer { raw, bytes: size as usize, id: next_id(), _file: None })
    }

    /// Bytes of a mapped file where they are, as memory of a GPU that shares the processor's: the buffer of their pages, and the
    /// byte in it with which they begin. None where memory is not shared, and if the GPU does not read what is in the file: then
    /// they have to be copied.
    #[cfg(target_vendor = "apple")]
    pub(crate) fn in_place(&self, bytes: &Bytes, landing: &wgpu::Buffer) -> Option<(Buffer, usize)> {
        use objc2_metal::{MTLDevice as _, MTLResourceOptions};
        /// Of Apple's own processors.
        const PAGE: usize = 16 << 10;
        let address = bytes.as_ptr() as usize;
        let at = address % PAGE;
        let size = (at + bytes.len()).next_multiple_of(PAGE) as u64;
        if !self.name.starts_with("Apple") || !at.is_multiple_of(16) || size > self.abilities.weights {
            return None;
        }
        // SAFETY: the handle is asked and left as it is; the device outlives it.
        let hal = unsafe { self.raw.as_hal::<wgpu::hal::api::Metal>() }?;
        let metal = hal.raw_device();
        if !metal.hasUnifiedMemory() {
            return None;
        }
        let pages = std::ptr::NonNull::new((address - at) as *mut std::ffi::c_void)?;
        // SAFETY: whole pages of which each has a byte of the file, so that all are mapped; the buffer keeps the file. Nothing
        // writes to them: weights are bound for reading alone.
        let shared = unsafe {
            metal.newBufferWithBytesNoCopy_length_options_deallocator(
                pages,
                size as usize,
                MTLResourceOptions::StorageModeShared,
                None,
            )
        }?;
        drop(hal);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let scopes = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory]
            .map(|of| self.raw.push_error_scope(of));
        // SAFETY: the buffer is of this device and of this size, which is not zero, and holds what is in the file.
        let raw = unsafe {
            let buffer = wgpu::hal::metal::Device::buffer_from_raw(shared, size);
            self.raw.create_buffer_from_hal::<wgpu::hal::api::Metal>(buffer, &descriptor)
        };
        let buffer = Buffer { raw, bytes: size as usize, id: next_id(), _file: Some(bytes.clone()) };
        let ends = [0, bytes.len().saturating_sub(PAGE) & !3];
        let same = ends.iter().all(|&start| {
            let expected = &bytes[start..bytes.len().min(start + PAGE)];
            let mut found = vec![0; expected.len()];
            self.read(landing, &buffer, at + start, &mut found).is_ok() && found == expected
        });
        // The last scope that was opened is closed first.
        let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).count();
        (same && errors == 0).then_some((buffer, at))
    }

    /// Elsewhere a GPU has memory of its own, or gets at the processor's no faster.
    #[cfg(not(target_vendor = "apple"))]
    #[expect(clippy::unused_self, reason = "Apple's asks the device")]
    pub(crate) fn in_place(&self, _: &Bytes, _: &wgpu::Buffer) -> Option<(Buffer, usize)> {
        None
    }

    /// Writes `src` at byte `at`, before everything submitted later. Both are whole words.
    pub(crate) fn write(&self, dst: &Buffer, at: usize, src: &[u8]) -> Result<()> {
        if !src.is_empty() {
            self.queue.write_buffer(&dst.raw, at as u64, src);
        }
        self.check()
    }

    /// Waits for everything submitted.
    pub(crate) fn wait(&self) -> Result<()> {
        self.wait_for(None)
    }

    /// Waits for a submission and those before it.
    pub(crate) fn wait_for(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let poll = wgpu::PollType::Wait { submission_index, timeout: Some(PATIENCE) };
        // wgpu panics if the GPU is lost just now.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.raw.poll(poll)));
        self.check()?;
        match outcome {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(self.error(format!("does not answer: {e}: start again, or use --cpu"))),
            Err(_) => Err(self.error(lost("no reason given"))),
        }
    }

    /// Waits for everything submitted, then copies bytes from `at` on, by way of `landing`.
    pub(crate) fn read(&self, landing: &wgpu::Buffer, src: &Buffer, at: usize, dst: &mut [u8]) -> Result<()> {
        let most = landing.size() as usize;
        for (i, piece) in dst.chunks_mut(most).enumerate() {
            let (from, len) = ((at + i * most) as u64, (piece.len() as u64).next_multiple_of(4));
            let mut encoder = self.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(&src.raw, from, landing, 0, Some(len));
            self.queue.submit([encoder.finish()]);
            let slice = landing.slice(..len);
            slice.map_async(wgpu::MapMode::Read, |_| ());
            self.wait()?;
            let mapped = slice.get_mapped_range().map_err(|e| self.error(format!("cannot be read: {e}")))?;
            piece.copy_from_slice(&mapped[..piece.len()]);
            drop(mapped);
            landing.unmap();
        }
        self.check()
    }

    /// Memory that `read` goes through.
    pub(crate) fn landing(&self, bytes: u64) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let buffer = self.raw.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage,
            mapped_at_creation: false,
        });
        self.check()?;
        Ok(buffer)
    }
}

/// A number that no other buffer has.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A step that takes longer has hung: no step of the largest batch takes a tenth of it on a GPU that is worth using.
const PATIENCE: Duration = Duration::from_mins(15);

fn lost(why: &str) -> String {
    format!("the GPU is lost: {why}: start again, or use --cpu")
}

/// The first of several errors is the one that says most.
fn keep(fault: &Mutex<Option<String>>, what: String) {
    fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
}

fn describe(error: &wgpu::Error) -> String {
    match error {
        wgpu::Error::OutOfMemory { .. } => {
            "out of memory: use a shorter context (-c), fewer slots, a smaller model, or --cpu".to_owned()
        }
        wgpu::Error::Validation { description, .. } => format!("refuses a command: {description}: use --cpu"),
        wgpu::Error::Internal { description, .. } => format!("fails: {description}: use --cpu"),
    }
}
