//! Launches: a kernel, a grid, one struct of arguments. Every launch may start while the one before it still runs (programmatic
//! dependent launch); kernels wait by themselves before they touch what others wrote.

use std::ffi::c_void;

use bytemuck::{Pod, Zeroable};
use cudarc::driver::{result, sys};
use ds4_model::Result;

use crate::backend::Cuda;
use crate::device::Buffer;
use crate::program::Kernel;

/// Shape of a launch.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) blocks: (u32, u32, u32),
    pub(crate) threads: u32,
    /// Dynamic shared memory, bytes.
    pub(crate) shared: u32,
}

impl Grid {
    pub(crate) fn new(x: u32, y: u32, threads: u32) -> Grid {
        Grid { blocks: (x, y, 1), threads, shared: 0 }
    }

    pub(crate) fn shared(self, bytes: usize) -> Grid {
        Grid { shared: bytes as u32, ..self }
    }
}

/// A table of equal rows, as kernels see it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Rows {
    data: u64,
    per_slot: u32,
    row_bytes: u32,
}

impl From<&ds4_model::Rows<Buffer>> for Rows {
    fn from(rows: &ds4_model::Rows<Buffer>) -> Rows {
        Rows { data: rows.data.ptr(), per_slot: rows.per_slot as u32, row_bytes: rows.row_bytes as u32 }
    }
}

/// Shared memory that a launch may have without asking.
const FREE_SHARED: u32 = 48 << 10;

impl Cuda {
    /// Enqueues `name` with `args` passed by value.
    pub(crate) fn launch<A: Pod>(&mut self, name: &str, grid: Grid, args: &A) -> Result<()> {
        let kernel = self.program.kernel(name);
        if grid.shared > FREE_SHARED {
            self.allow_shared(name, kernel, grid.shared)?;
        }
        let mut attribute = launch_attribute();
        attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attribute.value.programmaticStreamSerializationAllowed = 1;
        // Cards before Hopper do not know it.
        let known = u32::from(self.device.capability.0 >= 9);
        let config = sys::CUlaunchConfig {
            gridDimX: grid.blocks.0,
            gridDimY: grid.blocks.1,
            gridDimZ: grid.blocks.2,
            blockDimX: grid.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: grid.shared,
            hStream: self.device.stream,
            attrs: &raw mut attribute,
            numAttrs: known,
        };
        let mut params = [std::ptr::from_ref(args).cast_mut().cast::<c_void>()];
        // SAFETY: the one parameter is the struct that the kernel takes, mirrored and size-checked beside it; pointers in it
        // are buffers and weights that live as long as this backend.
        let launched = unsafe {
            sys::cuLaunchKernelEx(&raw const config, kernel.0, params.as_mut_ptr(), std::ptr::null_mut()).result()
        };
        self.device.check(&format!("cannot launch {name}"), launched)
    }

    /// Asks once for more shared memory than every kernel has.
    fn allow_shared(&mut self, name: &str, kernel: Kernel, bytes: u32) -> Result<()> {
        let allowed = self.shared.entry(kernel.0 as usize).or_default();
        if *allowed >= bytes {
            return Ok(());
        }
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function belongs to a loaded module.
        let set = unsafe { result::function::set_function_attribute(kernel.0, attribute, bytes as i32) };
        self.device.check(&format!("{name} needs {bytes} bytes of shared memory"), set)?;
        *self.shared.entry(kernel.0 as usize).or_default() = bytes;
        Ok(())
    }
}

fn launch_attribute() -> sys::CUlaunchAttribute {
    // SAFETY: a C struct of numbers and unions of numbers, for which zeros are valid.
    unsafe { std::mem::zeroed() }
}
