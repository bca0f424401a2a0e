//! Shaders: their text for a model's counts and an adapter's abilities, and pipelines made of it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread;

use ds4_model::{Result, Shape};

use crate::device::{Abilities, Device};
use crate::experts;
use crate::weight::Format;

/// Rows of x that a group of lanes multiplies with a weight row it has read, in steps of several rows.
pub(crate) const BATCH: u32 = 4;

/// One entry point and how its text is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kernel {
    /// Entry point.
    pub(crate) entry: &'static str,
    /// What `//if` of the text asks for.
    pub(crate) flags: &'static [&'static str],
    /// Weight format of the experts, if it has to do with them.
    pub(crate) format: Option<Format>,
    /// Number that the text knows as VARIANT: rows of x, or outputs of a hyper-connection.
    pub(crate) variant: u32,
}

/// Which of several texts an adapter gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    /// Subgroups, and all of them of 32.
    pub(crate) subgroups: bool,
    /// Products of square matrices by subgroups.
    pub(crate) matrices: Option<Matrices>,
}

/// Products of square matrices of float16, with float32 sums, by a subgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matrices {
    /// Rows and columns of a square, 8 or 16.
    pub(crate) side: usize,
    /// Invocations of a subgroup.
    pub(crate) lanes: usize,
    /// Whether they are loaded from single values, not fours of them.
    pub(crate) scalars: bool,
    /// Whether workgroups have more memory than every adapter is asked for.
    pub(crate) roomy: bool,
}

impl Matrices {
    /// Inputs that a tile has at a time: 64 if that fits; small squares of sums leave narrow tiles room enough.
    fn depth(self, narrow: bool) -> usize {
        if self.roomy || (narrow && self.side == 8) { 64 } else { 32 }
    }
}

/// Subgroups of a workgroup that multiplies matrices.
const SUBGROUPS: usize = 8;

impl Kernel {
    pub(crate) const fn new(entry: &'static str, flags: &'static [&'static str]) -> Kernel {
        Kernel { entry, flags, format: None, variant: 0 }
    }

    pub(crate) const fn variant(self, variant: u32) -> Kernel {
        Kernel { variant, ..self }
    }

    pub(crate) const fn format(self, format: Format) -> Kernel {
        Kernel { format: Some(format), ..self }
    }

    /// Whether its text is another one where there are cooperative matrices.
    fn has_matrices(self) -> bool {
        matches!(self.entry, "dense_rows" | "experts_rows" | "experts_halves" | "attend_rows")
    }

    /// Whether it is of no use without.
    fn needs_matrices(self) -> bool {
        matches!(self.entry, "experts_halves" | "attend_rows")
    }
}

const COMMON: &str = include_str!("../shaders/common.wgsl");
const SUM_SHARED: &str = include_str!("../shaders/sum_shared.wgsl");
const SUM_SUBGROUP: &str = include_str!("../shaders/sum_subgroup.wgsl");
const BLOCK: &str = include_str!("../shaders/block.wgsl");
const ENCODE: &str = include_str!("../shaders/encode.wgsl");
const ROW: &str = include_str!("../shaders/row.wgsl");
const FORMATS: &str = include_str!("../shaders/dense_formats.wgsl");
const EXPERT_FORMATS: &str = include_str!("../shaders/expert_formats.wgsl");
const EXPERT_TILE: &str = include_str!("../shaders/expert_tile.wgsl");
const GEMM: &str = include_str!("../shaders/gemm.wgsl");
const MATRIX: &str = include_str!("../shaders/matrix.wgsl");
const GEMM_MATRIX: &str = include_str!("../shaders/gemm_matrix.wgsl");
const EXPERT_DOT: &str = include_str!("../shaders/expert_dot.wgsl");

const LAST: &str = include_str!("../shaders/last.wgsl");

const EMBED: &str = include_str!("../shaders/embed.wgsl");
const HC: &str = include_str!("../shaders/hc.wgsl");
const DENSE: &str = include_str!("../shaders/dense.wgsl");
const PROJECT: &str = include_str!("../shaders/project.wgsl");
const QUERY: &str = include_str!("../shaders/query.wgsl");
const COMPRESSOR: &str = include_str!("../shaders/compressor.wgsl");
const INDEXER: &str = include_str!("../shaders/indexer.wgsl");
const VISIBLE: &str = include_str!("../shaders/visible.wgsl");
const ATTENTION: &str = include_str!("../shaders/attention.wgsl");
const ATTENTION_ROWS: &str = include_str!("../shaders/attention_rows.wgsl");
const ROUTER: &str = include_str!("../shaders/router.wgsl");
const EXPERTS: &str = include_str!("../shaders/experts.wgsl");
const EXPERTS_IQ2: &str = include_str!("../shaders/experts_iq2.wgsl");
const DENSE_ROWS: &str = include_str!("../shaders/dense_rows.wgsl");
const EXPERTS_DOWN: &str = include_str!("../shaders/experts_down.wgsl");
const EXPERT_ROWS: &str = include_str!("../shaders/expert_rows.wgsl");
const POST: &str = include_str!("../shaders/post.wgsl");
const BEST: &str = include_str!("../shaders/best.wgsl");
const DRAFT: &str = include_str!("../shaders/draft.wgsl");

/// The stage's own text, what it builds on, and the invocations of a workgroup.
fn parts(kernel: Kernel, matrices: Option<Matrices>) -> (&'static [&'static str], usize) {
    if let Some(Matrices { lanes, .. }) = matrices {
        let threads = SUBGROUPS * lanes;
        match kernel.entry {
            "dense_rows" => return (&[FORMATS, MATRIX, GEMM_MATRIX, DENSE_ROWS], threads),
            "experts_rows" => return (&[FORMATS, EXPERT_FORMATS, MATRIX, GEMM_MATRIX, EXPERT_ROWS], threads),
            "attend_rows" => return (&[ENCODE, MATRIX, VISIBLE, ATTENTION_ROWS], threads),
            _ => {}
        }
    }
    match kernel.entry {
        "embed" => (&[EMBED], 256),
        "hc_products" | "hc_collapse" => (&[FORMATS, HC], 256),
        "dense" if kernel.flags.contains(&"PROJECT") => (&[FORMATS, ENCODE, ROW, DENSE, PROJECT], 128),
        "dense" if kernel.flags.contains(&"JOINED") => (&[FORMATS, ENCODE, ROW, DENSE, QUERY, COMPRESSOR], 128),
        "dense" if kernel.flags.contains(&"QUERY") => (&[FORMATS, ENCODE, ROW, DENSE, QUERY], 128),
        "dense" if kernel.flags.contains(&"ROUTE") => (&[FORMATS, DENSE, ROUTER], 128),
        "dense" => (&[FORMATS, DENSE], 128),
        "project" => (&[ENCODE, ROW, PROJECT], 128),
        "query" => (&[ENCODE, ROW, QUERY], 128),
        "compress_append" => (&[ENCODE, ROW, COMPRESSOR], 128),
        "compress_keep" => (&[COMPRESSOR], 128),
        "index_score" | "index_choose" => (&[ENCODE, INDEXER], 256),
        "attend" | "attend_combine" => (&[FORMATS, ENCODE, VISIBLE, ATTENTION], 128),
        "route" => (&[ROUTER], 128),
        "experts" => (&[FORMATS, EXPERT_FORMATS, EXPERTS], 256),
        "dense_rows" => (&[FORMATS, GEMM, DENSE_ROWS], 64),
        "experts_rows" => (&[FORMATS, EXPERT_FORMATS, GEMM, EXPERT_ROWS], 64),
        "experts_iq2" => (&[FORMATS, EXPERTS_IQ2], 256),
        "experts_down" => (&[FORMATS, EXPERT_FORMATS, EXPERTS_DOWN], 256),
        "experts_group" | "experts_halves" => (&[EXPERT_ROWS], 256),
        "post" => (&[POST], 256),
        "best_part" | "best_row" => (&[BEST], 256),
        _ => (&[FORMATS, DRAFT], 256),
    }
}

/// The text of a kernel for a shape.
fn text(kernel: Kernel, s: &Shape, Paths { subgroups, matrices }: Paths) -> String {
    let (own, threads) = parts(kernel, matrices);
    let mut flags: Vec<&str> = kernel.flags.to_vec();
    let mut repeats = Vec::new();
    let mut out = String::new();
    if let Some(of @ Matrices { side, lanes, scalars, .. }) = matrices.filter(|_| kernel.has_matrices()) {
        let narrow = flags.contains(&"NARROW");
        let (half_tile, depth) = (if narrow { 32 } else { 64 }, of.depth(narrow));
        repeats.extend([("SIXTEEN", 16), ("SIXTY_FOUR", 64), ("HALF_TILE", half_tile), ("STEPS", depth)]);
        repeats.iter_mut().for_each(|(_, count)| *count /= side);
        repeats.extend([("W_EACH", 128 * depth / 16 / threads), ("X_EACH", 2 * half_tile * depth / 4 / threads)]);
        flags.extend(["MATRICES", if scalars { "SCALARS" } else { "ORDERED" }]);
        out.push_str("enable f16;\nenable wgpu_cooperative_matrix;\n");
        for (name, of) in [("Left", "f16, A"), ("Right", "f16, B"), ("Sums", "f32, C")] {
            writeln!(out, "alias {name} = coop_mat{side}x{side}<{of}>;").expect("text grows");
        }
        writeln!(out, "const SIDE = {side}u;\nconst LANES = {lanes}u;\nconst DEPTH = {depth}u;").expect("text grows");
    }
    out.push_str(&constants(s, threads, kernel));
    if let Some(format) = kernel.format {
        flags.push(format.flag());
    }
    let asked = Asked { flags: &flags, repeats: &repeats };
    if flags.contains(&"FUSED") {
        append(&mut out, LAST, asked);
    }
    let sums = if subgroups { SUM_SUBGROUP } else { SUM_SHARED };
    for part in [COMMON, sums, BLOCK].iter().chain(own) {
        append(&mut out, part, asked);
    }
    out
}

/// Counts of the model. Floats are given in full, so that the shader has the bits of the host.
fn constants(s: &Shape, threads: usize, kernel: Kernel) -> String {
    let mut out = String::new();
    let counts = [
        ("THREADS", threads),
        ("N_EMBD", s.n_embd),
        ("N_HEAD", s.n_head),
        ("Q_LORA", s.q_lora_dim),
        ("N_INDEX_HEAD", s.n_index_head),
        ("TOP_K", s.index_top_k),
        ("N_EXPERT", s.n_expert),
        ("N_USED", s.n_expert_used),
        ("FF", s.ff_dim),
        ("SINKHORN", s.sinkhorn_iters),
        ("BATCH", kernel.variant.max(1) as usize),
        ("OUTPUTS", kernel.variant as usize),
        ("FORMAT_Q8", Format::Q8 as usize),
        ("FORMAT_F16", Format::F16 as usize),
    ];
    for (name, value) in counts {
        writeln!(out, "const {name} = {value}u;").expect("text grows");
    }
    for (name, value) in [("RMS_EPS", s.rms_eps), ("HC_EPS", s.hc_eps), ("EXPERT_SCALE", s.expert_scale)] {
        writeln!(out, "const {name} = {value:e}f;").expect("text grows");
    }
    out
}

/// What a kernel's text is to have.
#[derive(Clone, Copy)]
struct Asked<'a> {
    flags: &'a [&'a str],
    repeats: &'a [(&'a str, usize)],
}

/// Copies text line by line: `//if FLAG`, `//else` and `//end` leave out what is not asked for, `//each NAME COUNT` repeats up to
/// its `//end` with the numbers from 0 in the place of `$NAME` (a count is a number or the name of one), `//dot NAME TABLE` and
/// `//tile NAME TABLE` put in the product or the tile of an expert's weights.
fn append(out: &mut String, text: &str, asked: Asked<'_>) {
    let mut open: Vec<bool> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let instance = |text: &str, name: &str, table: &str| text.replace("NAME", name).replace("TABLE", table);
        match words.as_slice() {
            ["//if", flag] => open.push(asked.flags.contains(flag)),
            ["//else"] => {
                let last = open.last_mut().expect("an else has its if");
                *last = !*last;
            }
            ["//end"] => drop(open.pop().expect("an end has its if")),
            ["//each", name, count] => {
                let body = block(&mut lines);
                let named = asked.repeats.iter().find(|(name, _)| name == count);
                let count = named.map_or_else(|| count.parse().expect("a number of repetitions"), |&(_, count)| count);
                for i in (0..count).filter(|_| !open.contains(&false)) {
                    append(out, &body.replace(&format!("${name}"), &i.to_string()), asked);
                }
            }
            _ if open.contains(&false) => {}
            ["//dot", name, table] => append(out, &instance(EXPERT_DOT, name, table), asked),
            ["//tile", name, table] => append(out, &instance(EXPERT_TILE, name, table), asked),
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
}

/// Lines up to the end of an open block, without its `//end`.
fn block(lines: &mut std::str::Lines<'_>) -> String {
    let (mut body, mut depth) = (String::new(), 1);
    for line in lines {
        match line.split_whitespace().next() {
            Some("//if" | "//each") => depth += 1,
            Some("//end") => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        body.push_str(line);
        body.push('\n');
    }
    body
}

/// A shader's text for a check without a device.
#[derive(Clone, Debug)]
pub struct Shader {
    /// Entry point and variant.
    pub name: String,
    /// Entry point.
    pub entry: &'static str,
    /// WGSL.
    pub text: String,
    /// Whether it is for adapters with cooperative matrices, and not for Metal's.
    pub matrices: bool,
}

/// Every shader of models of this shape: with and without subgroups, and where it makes a difference with cooperative matrices, of
/// NVIDIA's, Apple's and lavapipe's kind.
pub fn shaders(s: &Shape) -> Vec<Shader> {
    let kinds = [(16, 32, false, true), (16, 32, false, false), (8, 32, true, false), (8, 8, false, false)]
        .map(|(side, lanes, scalars, roomy)| Matrices { side, lanes, scalars, roomy });
    let without = [false, true].map(|subgroups| Paths { subgroups, matrices: None });
    let with = kinds.map(|kind| Paths { subgroups: kind.lanes == 32, matrices: Some(kind) });
    let mut out = Vec::new();
    for paths in without.into_iter().chain(with) {
        for kernel in crate::backend::kernels().into_iter().chain(Format::ALL.into_iter().flat_map(experts::kernels)) {
            if paths.matrices.map_or(kernel.needs_matrices(), |_| !kernel.has_matrices()) {
                continue;
            }
            let format = kernel.format.map_or("", Format::flag);
            let name = format!("{} {:?} {format} {} {paths:?}", kernel.entry, kernel.flags, kernel.variant);
            let matrices = paths.matrices.is_some_and(|matrices| !matrices.scalars);
            out.push(Shader { name, entry: kernel.entry, text: text(kernel, s, paths), matrices });
        }
    }
    out
}

/// Pipelines by kernel.
#[derive(Default)]
pub(crate) struct Program {
    pipelines: HashMap<Kernel, Pipeline>,
}

/// A pipeline and the layout of its one bind group.
#[derive(Clone)]
pub(crate) struct Pipeline {
    pub(crate) id: usize,
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

impl Program {
    /// Makes the pipelines of kernels side by side, so that no step waits for them. Those that the adapter has no use for are
    /// left out, and so is a processor that imitates a GPU: it makes nothing of a kernel before it runs it.
    pub(crate) fn prepare(&mut self, device: &Device, s: &Shape, kernels: &[Kernel]) -> Result<()> {
        let Abilities { paths, coherent, .. } = device.abilities;
        let of_use = |kernel: &Kernel| {
            !device.software
                && (coherent || !kernel.flags.contains(&"FUSED"))
                && (paths.matrices.is_some() || !kernel.needs_matrices())
                && !self.pipelines.contains_key(kernel)
        };
        let kernels: Vec<Kernel> = kernels.iter().copied().filter(of_use).collect();
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(kernels.len());
        let made: Vec<_> = thread::scope(|scope| {
            let worker = |first| {
                let own = kernels.iter().skip(first).step_by(threads);
                scope.spawn(|| own.map(|&kernel| (kernel, make(device, s, kernel))).collect::<Vec<_>>())
            };
            let workers: Vec<_> = (0..threads).map(worker).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        device.check()?;
        made.into_iter().for_each(|(kernel, raw)| drop(self.keep(kernel, raw)));
        Ok(())
    }

    /// Whether the driver takes these kernels. One that it refuses is no fault of the device then.
    pub(crate) fn compiles(&mut self, device: &Device, s: &Shape, kernels: &[Kernel]) -> Result<bool> {
        let scopes =
            [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation].map(|of| device.raw.push_error_scope(of));
        for &kernel in kernels {
            self.pipeline(device, s, kernel)?;
        }
        // The last scope that was opened is closed first.
        let errors = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
        Ok(errors.flatten().count() == 0)
    }

    /// The kernel's pipeline, made now if it is new.
    pub(crate) fn pipeline(&mut self, device: &Device, s: &Shape, kernel: Kernel) -> Result<Pipeline> {
        if let Some(pipeline) = self.pipelines.get(&kernel) {
            return Ok(pipeline.clone());
        }
        let raw = make(device, s, kernel);
        device.check()?;
        Ok(self.keep(kernel, raw))
    }

    /// Kernels that have a pipeline.
    #[cfg(test)]
    pub(crate) fn made(&self) -> impl Iterator<Item = &Kernel> {
        self.pipelines.keys()
    }

    fn keep(&mut self, kernel: Kernel, raw: wgpu::ComputePipeline) -> Pipeline {
        let layout = raw.get_bind_group_layout(0);
        let pipeline = Pipeline { id: self.pipelines.len(), raw, layout };
        self.pipelines.insert(kernel, pipeline.clone());
        pipeline
    }
}

/// Makes a pipeline, whatever becomes of it.
fn make(device: &Device, s: &Shape, kernel: Kernel) -> wgpu::ComputePipeline {
    let source = text(kernel, s, device.abilities.paths);
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(kernel.entry), source: wgpu::ShaderSource::Wgsl(source.into()) };
    // SAFETY: the shaders index inside the bindings they are given: rows, pieces and columns are bounded by the counts in
    // their text and by the parameters of the dispatch, which the host makes from the sizes of the same buffers; ids of
    // experts come from the router or a checked table; loops end by the same counts.
    let module = unsafe { device.raw.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
    device.raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(kernel.entry),
        layout: None,
        module: &module,
        entry_point: Some(kernel.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..wgpu::PipelineCompilationOptions::default()
        },
        cache: None,
    })
}
