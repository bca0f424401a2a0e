//! Kernel text to machine code: NVRTC compiles every file of `kernels/` for the card that is there, with the model's counts as
//! constants; what it makes is kept in the user's cache folder under the hash of everything it depends on.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::thread;

use cudarc::driver::{result, sys};
use cudarc::nvrtc;
use ds4_model::{Error, Result, Shape};
use sha2::{Digest, Sha256};

use crate::backend::Notice;
use crate::device::Device;

/// A kernel of a loaded program.
#[derive(Clone, Copy)]
pub(crate) struct Kernel(pub(crate) sys::CUfunction);

/// All kernels by name.
pub(crate) struct Program {
    kernels: HashMap<&'static str, Kernel>,
    modules: Vec<sys::CUmodule>,
    device: Arc<Device>,
}

// SAFETY: modules and functions may be used from any thread with the context current.
unsafe impl Send for Program {}

/// A file of kernels: its name, its text, its entry points; several programs may come from one file.
struct Source {
    name: &'static str,
    text: &'static str,
    defines: &'static [&'static str],
    kernels: &'static [&'static str],
}

macro_rules! source {
    ($name:literal, [$($kernel:literal),* $(,)?]) => {
        source!($name, [], [$($kernel),*])
    };
    ($name:literal, [$($define:expr),*], [$($kernel:expr),* $(,)?]) => {
        Source {
            name: $name,
            text: include_str!(concat!("../kernels/", $name)),
            defines: &[$($define),*],
            kernels: &[$($kernel),*],
        }
    };
}

/// The products of one K.
macro_rules! dense {
    ($name:literal, $k:literal $(, $define:literal)?) => {
        source!(
            "dense.cu",
            [concat!("-DDENSE_NAME=", $name), concat!("-DDENSE_K=", $k) $(, concat!("-D", $define))?],
            [
                concat!($name, "_1"),
                concat!($name, "_4"),
                concat!($name, "_8"),
                concat!($name, "_16"),
                concat!($name, "_32")
            ]
        )
    };
}

/// The experts of one format.
macro_rules! gemm_experts {
    ($suffix:literal, $define:literal) => {
        source!(
            "gemm_experts.cu",
            [concat!("-DEXPERTS_", $define)],
            [
                concat!("gemm_gate_up_", $suffix, "_64"),
                concat!("gemm_gate_up_", $suffix, "_112"),
                concat!("gemm_down_", $suffix, "_64"),
                concat!("gemm_down_", $suffix, "_112")
            ]
        )
    };
}

macro_rules! header {
    ($name:literal) => {
        ($name, include_str!(concat!("../kernels/", $name)))
    };
}

/// What the files include.
const HEADERS: [(&str, &str); 12] = [
    header!("common.cuh"),
    header!("encode.cuh"),
    header!("hc.cuh"),
    header!("q8.cuh"),
    header!("query.cuh"),
    header!("rows.cuh"),
    header!("quant.cuh"),
    header!("attention.cuh"),
    header!("indexer.cuh"),
    header!("wgmma.cuh"),
    header!("gemm.cuh"),
    header!("gemm_formats.cuh"),
];

const SOURCES: &[Source] = &[
    source!("repack.cu", ["repack_q8", "repack_f16"]),
    source!("dense.cu", ["-DDENSE_NAME=unused", "-DDENSE_K=64", "-DDENSE_PACK"], ["dense_pack"]),
    dense!("dense_embd", "N_EMBD"),
    dense!("dense_lora", "Q_LORA"),
    dense!("dense_group", "(N_HEAD*HEAD/N_GROUP)"),
    dense!("dense_low", "(N_GROUP*O_LORA)", "DENSE_POST"),
    dense!("dense_ff", "FF"),
    source!("embed.cu", ["embed"]),
    source!("best.cu", ["best_part", "best_row"]),
    source!("hold.cu", ["hold"]),
    source!(
        "hc.cu",
        [
            "hc_products",
            "hc_products_f32",
            "hc_products_rows",
            "hc_head_products",
            "hc_head_products_f32",
            "hc_collapse",
            "hc_head_collapse",
            "hc_mix",
            "hc_post"
        ]
    ),
    source!("project.cu", ["project_finish"]),
    source!("query.cu", ["query_finish"]),
    source!("compressor.cu", ["compress", "compress_keep"]),
    source!("route.cu", ["route_finish"]),
    source!("repack_experts.cu", ["repack_iq2", "repack_q2k", "repack_q4k", "repack_mxfp4"]),
    source!("attention.cu", ["attend_split", "attend_combine"]),
    source!("attention_prefill.cu", ["attend_prefill"]),
    source!("indexer.cu", ["index_score", "index_slice", "index_top"]),
    source!("indexer_prefill.cu", ["index_pack", "index_score_prefill"]),
    source!(
        "experts.cu",
        [
            "experts_group",
            "experts_gate_up_iq2",
            "experts_gate_up_q2k",
            "experts_gate_up_q4k",
            "experts_gate_up_mxfp4",
            "experts_down_iq2",
            "experts_down_q2k",
            "experts_down_q4k",
            "experts_down_mxfp4",
            "experts_sum"
        ]
    ),
    source!("pack.cu", ["pack", "pack_gather"]),
    source!("gemm.cu", ["gemm_q8_256", "gemm_q8_128", "gemm_q8_64", "gemm_f16_128", "gemm_f16_64"]),
    source!("gemm_group.cu", ["gemm_group"]),
    gemm_experts!("iq2", "IQ2"),
    gemm_experts!("q2k", "Q2K"),
    gemm_experts!("q4k", "Q4K"),
    gemm_experts!("mxfp4", "MXFP4"),
    source!("draft.cu", ["keep_streams", "draft_norm", "draft_add"]),
];

/// The model's counts, by the names that kernels know them by.
pub(crate) fn defines(s: &Shape) -> Vec<String> {
    let counts = [
        ("N_EMBD", s.n_embd),
        ("N_VOCAB", s.n_vocab),
        ("N_HEAD", s.n_head),
        ("Q_LORA", s.q_lora_dim),
        ("N_GROUP", s.n_out_group),
        ("O_LORA", s.out_lora_dim),
        ("N_INDEX_HEAD", s.n_index_head),
        ("TOP_K", s.index_top_k),
        ("N_EXPERT", s.n_expert),
        ("N_USED", s.n_expert_used),
        ("FF", s.ff_dim),
    ];
    counts.iter().map(|(name, n)| format!("-D{name}={n}")).collect()
}

/// The name NVRTC knows a card's architecture by: with the features of this very generation where kernels use them.
fn architecture((major, minor): (u32, u32)) -> String {
    match (major, minor) {
        (9, 0) => "sm_90a".to_owned(),
        (major, minor) => format!("sm_{major}{minor}"),
    }
}

impl Program {
    /// Compiles, or takes from `cache`, and loads every kernel.
    pub(crate) fn load(
        device: &Arc<Device>,
        shape: &Shape,
        cache: Option<&Path>,
        notice: Option<&Notice>,
    ) -> Result<Program> {
        let mut options = vec![
            format!("--gpu-architecture={}", architecture(device.capability)),
            "--std=c++17".to_owned(),
            "-default-device".to_owned(),
        ];
        options.extend(defines(shape));
        let fail = |what: String| device.error(what);
        let first = Once::new();
        let compiling = || {
            let once = if cache.is_some() { ", once" } else { "" };
            let tell = |told: &Notice| told(&format!("compiling kernels for {}{once}", device.name));
            first.call_once(|| notice.into_iter().for_each(tell));
        };
        let images: Vec<std::result::Result<Vec<u8>, String>> = thread::scope(|scope| {
            let workers: Vec<_> =
                SOURCES.iter().map(|source| scope.spawn(|| image(source, &options, cache, &compiling))).collect();
            workers.into_iter().map(|w| w.join().expect("a compiler thread does not panic")).collect()
        });
        device.bind()?;
        let mut program = Program { kernels: HashMap::new(), modules: Vec::new(), device: Arc::clone(device) };
        for (source, image) in SOURCES.iter().zip(images) {
            program.add(source, &image.map_err(fail)?)?;
        }
        Ok(program)
    }

    fn add(&mut self, source: &Source, image: &[u8]) -> Result<()> {
        // SAFETY: the image is a whole cubin, made by NVRTC for this card.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) };
        let module = self.device.check(&format!("cannot load {}", source.name), module)?;
        self.modules.push(module);
        for &name in source.kernels {
            let symbol = CString::new(name).expect("kernel names hold no zero");
            // SAFETY: the module was just loaded.
            let function = unsafe { result::module::get_function(module, symbol) };
            let function = self.device.check(&format!("no kernel {name} in {}", source.name), function)?;
            // A multiprocessor that changes its split of cache and shared memory must drain first: then no kernel starts beside
            // another. All take the largest share.
            let carveout = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
            // SAFETY: as above.
            let set = unsafe { result::function::set_function_attribute(function, carveout, 100) };
            self.device.check("cannot set up a kernel", set)?;
            self.kernels.insert(name, Kernel(function));
        }
        Ok(())
    }

    /// The kernel of this name.
    ///
    /// # Panics
    /// If no file has it: names are literals of this crate.
    pub(crate) fn kernel(&self, name: &str) -> Kernel {
        *self.kernels.get(name).unwrap_or_else(|| panic!("no kernel {name}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.device.bind();
        for module in self.modules.drain(..) {
            // SAFETY: nothing launches these kernels any more.
            let _ = unsafe { result::module::unload(module) };
        }
    }
}

/// Whether NVRTC is there.
pub(crate) fn has_compiler() -> bool {
    // SAFETY: looks for a library by name; nothing runs.
    unsafe { nvrtc::sys::is_culib_present() }
}

/// What to do where it is not.
pub(crate) const NO_COMPILER: &str = "NVRTC, the run-time compiler of CUDA, is not there: install the CUDA toolkit, or `pip \
    install nvidia-cuda-nvrtc` and add its lib folder to LD_LIBRARY_PATH, or use --cpu";

/// Machine code of a file, from the cache or fresh. A cache that cannot be used is not an error.
fn image(
    source: &Source,
    options: &[String],
    cache: Option<&Path>,
    compiling: &(dyn Fn() + Sync),
) -> std::result::Result<Vec<u8>, String> {
    let compiler = has_compiler();
    let version = if compiler { version() } else { (0, 0) };
    let path = cache.map(|cache| cache.join(format!("{}-{}.cubin", source.name, key(source, options, version))));
    if let Some(image) =
        path.as_ref().and_then(|path| fs::read(path).ok()).filter(|image| image.starts_with(b"\x7fELF"))
    {
        return Ok(image);
    }
    if !compiler {
        return Err(NO_COMPILER.to_owned());
    }
    compiling();
    let image = compile(source, options)?;
    if let Some(path) = path {
        store(&path, &image);
    }
    Ok(image)
}

fn version() -> (i32, i32) {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two numbers.
    let _ = unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    (major, minor)
}

fn key(source: &Source, options: &[String], version: (i32, i32)) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{version:?} {options:?} {:?}", source.defines));
    for (_, text) in HEADERS {
        hash.update(text);
    }
    hash.update(source.text);
    let bytes = hash.finalize();
    let first = bytes.first_chunk().expect("SHA-256 has 32 bytes");
    format!("{:032x}", u128::from_be_bytes(*first))
}

/// Published under its name when it is whole: another process may look for it.
fn store(path: &Path, image: &[u8]) {
    let Some(folder) = path.parent() else { return };
    let temporary: PathBuf = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&temporary, image));
    if written.and_then(|()| fs::rename(&temporary, path)).is_err() {
        let _ = fs::remove_file(&temporary);
    }
}

/// NVRTC's handle, freed when dropped.
struct Compilation(nvrtc::sys::nvrtcProgram);

impl Drop for Compilation {
    fn drop(&mut self) {
        // SAFETY: the handle is this value's own.
        let _ = unsafe { nvrtc::result::destroy_program(self.0) };
    }
}

fn compile(source: &Source, options: &[String]) -> std::result::Result<Vec<u8>, String> {
    let said = |e: nvrtc::result::NvrtcError| format!("{}: NVRTC failed: {e}", source.name);
    let c_string = |text: &str| CString::new(text).expect("kernel text holds no zero");
    let (text, name) = (c_string(source.text), c_string(source.name));
    let headers: Vec<(CString, CString)> =
        HEADERS.iter().map(|(name, text)| (c_string(name), c_string(text))).collect();
    let texts: Vec<*const c_char> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
    let names: Vec<*const c_char> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
    let mut handle = std::ptr::null_mut();
    // SAFETY: all strings outlive the call; the counts are those of the arrays.
    let made = unsafe {
        nvrtc::sys::nvrtcCreateProgram(
            &raw mut handle,
            text.as_ptr(),
            name.as_ptr(),
            headers.len() as i32,
            texts.as_ptr(),
            names.as_ptr(),
        )
    };
    made.result().map_err(said)?;
    let program = Compilation(handle);
    let options: Vec<&str> = options.iter().map(String::as_str).chain(source.defines.iter().copied()).collect();
    // SAFETY: the program is alive.
    if let Err(e) = unsafe { nvrtc::result::compile_program(program.0, &options) } {
        // SAFETY: as above.
        let log = unsafe { nvrtc::result::get_program_log(program.0) }.unwrap_or_default();
        let log: Vec<u8> = log.iter().map(|&c| c as u8).collect();
        let log = CStr::from_bytes_until_nul(&log).map_or_else(|_| String::new(), |s| s.to_string_lossy().into_owned());
        return Err(format!("{}: {e}\n{log}", source.name));
    }
    let mut size = 0;
    // SAFETY: the program is compiled; the size is what NVRTC then writes.
    unsafe {
        nvrtc::sys::nvrtcGetCUBINSize(program.0, &raw mut size).result().map_err(said)?;
        let mut image = vec![0u8; size];
        nvrtc::sys::nvrtcGetCUBIN(program.0, image.as_mut_ptr().cast()).result().map_err(said)?;
        Ok(image)
    }
}

/// Compiles every kernel for `architecture` without a card: what the checks run.
///
/// # Errors
/// No NVRTC, or its messages.
pub fn check(architecture: &str, shape: &Shape) -> Result<usize> {
    let fail = |what: String| Error::Device { device: architecture.to_owned(), what };
    if !has_compiler() {
        return Err(fail(NO_COMPILER.to_owned()));
    }
    let mut options =
        vec![format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned(), "-default-device".to_owned()];
    options.extend(defines(shape));
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let work = || -> std::result::Result<usize, String> {
            let mut bytes = 0;
            while let Some(source) = SOURCES.get(next.fetch_add(1, Ordering::Relaxed)) {
                bytes += compile(source, &options)?.len();
            }
            Ok(bytes)
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|w| w.join().expect("a compiler thread does not panic"))
            .sum::<std::result::Result<_, _>>()
    })
    .map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRONG: Source = Source {
        name: "wrong.cu",
        text: "extern \"C\" __global__ void wrong(float* out) {\n    out[threadIdx.x] = unheard_of;\n}\n",
        defines: &[],
        kernels: &["wrong"],
    };

    #[test]
    #[ignore = "needs NVRTC, which .ci/run installs"]
    fn text_that_does_not_compile_is_named_with_what_nvrtc_says() {
        let error = compile(&WRONG, &["--gpu-architecture=sm_80".to_owned()]).expect_err("no such name");
        assert!(error.starts_with("wrong.cu: ") && error.contains("wrong.cu(2)"), "{error}");
        assert!(error.contains("unheard_of"), "{error}");
    }

    #[test]
    fn kernels_are_kept_under_all_that_they_depend_on() {
        let (one, other) = (&SOURCES[0], &SOURCES[1]);
        let options = |flag: &str| vec![flag.to_owned()];
        let of = |source: &Source, flag: &str, version| key(source, &options(flag), version);
        let key = of(one, "-DA=1", (13, 0));
        assert_eq!(key, of(one, "-DA=1", (13, 0)));
        for different in [of(other, "-DA=1", (13, 0)), of(one, "-DA=2", (13, 0)), of(one, "-DA=1", (13, 1))] {
            assert_ne!(key, different);
        }
    }

    #[test]
    fn what_a_cache_holds_needs_no_compiler_unless_it_is_torn() {
        let folder = std::env::temp_dir().join(format!("ds4-cuda-cache-{}", std::process::id()));
        let options = vec!["--gpu-architecture=sm_80".to_owned()];
        let version = if has_compiler() { version() } else { (0, 0) };
        let path = folder.join(format!("{}-{}.cubin", WRONG.name, key(&WRONG, &options, version)));
        store(&path, b"\x7fELF and so on");
        let told = AtomicUsize::new(0);
        let compiling = || {
            told.fetch_add(1, Ordering::Relaxed);
        };
        let from_cache = || image(&WRONG, &options, Some(&folder), &compiling);
        assert_eq!(from_cache(), Ok(b"\x7fELF and so on".to_vec()));
        assert_eq!(told.load(Ordering::Relaxed), 0);
        store(&path, b"torn");
        assert!(from_cache().is_err(), "the text is wrong, or there is no compiler");
        fs::remove_dir_all(&folder).expect("the folder was made");
    }
}
