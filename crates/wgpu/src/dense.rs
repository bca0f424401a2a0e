//! Products with dense matrices: several of one input in one dispatch where their weights share a buffer.

use std::collections::HashMap;

use bytemuck::{Pod, Zeroable};
use ds4_model::Result;

use crate::backend::{SMALL, Wgpu, small};
use crate::device::Buffer;
use crate::program::{BATCH, Kernel};
use crate::record::Held;
use crate::weight::{Format, Weight};

/// A matrix and what becomes of its product.
pub(crate) struct Product<'a> {
    pub(crate) w: &'a Weight,
    /// First output in a row of them.
    pub(crate) to: usize,
    /// Weight rows that share a part of the input; all of them unless the matrix is one of several in one.
    pub(crate) group: usize,
}

impl<'a> Product<'a> {
    pub(crate) fn new(w: &'a Weight, to: usize) -> Product<'a> {
        Product { w, to, group: w.m }
    }
}

/// Rows of floats.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a Buffer,
    pub(crate) stride: usize,
}

/// Where outputs go.
#[derive(Clone, Copy)]
pub(crate) enum Out<'a> {
    Rows(Matrix<'a>),
    /// Into the streams, by the mix of each row.
    Post {
        streams: &'a Buffer,
        mix: &'a Buffer,
    },
    /// To a stage that makes use of them in the same dispatch.
    Finished(Finish<'a>),
}

/// What a stage's text behind `dense.wgsl` needs; see [`Wgpu::finishes`].
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// For one row and for several.
    pub(crate) kernels: [Kernel; 2],
    pub(crate) own: [u32; 8],
    pub(crate) stride: usize,
    /// Whether another stage is to join the dispatch, if it is one.
    pub(crate) waits: bool,
    /// In the order of its bindings, from 4 on.
    pub(crate) buffers: &'a [&'a Buffer],
}

/// As `Segment` in `dense.wgsl`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Segment {
    codes: u32,
    scales: u32,
    rows: u32,
    first: u32,
    to: u32,
    format: u32,
    group_rows: u32,
    group_first: u32,
}
const _: () = assert!(size_of::<Segment>() == 32);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    n: u32,
    k: u32,
    x_stride: u32,
    out_stride: u32,
    segments: u32,
    sides: u32,
    pad: [u32; 2],
    own: [u32; 8],
}

pub(crate) const DENSE: Kernel = Kernel::new("dense", &[]);
pub(crate) const DENSE_MANY: Kernel = Kernel::new("dense", &["MANY"]).variant(BATCH);
pub(crate) const DENSE_POST: Kernel = Kernel::new("dense", &["POST"]);
pub(crate) const DENSE_POST_MANY: Kernel = Kernel::new("dense", &["POST", "MANY"]).variant(BATCH);

pub(crate) const ROWS: Kernel = Kernel::new("dense_rows", &[]);
pub(crate) const POST: Kernel = Kernel::new("post", &[]);
pub(crate) const POST_ROUTED: Kernel = Kernel::new("post", &["ROUTED"]);

/// Weight rows of a workgroup in short steps.
const BLOCK: usize = 8;
/// Weight rows and rows of x of a workgroup in long ones, as in `gemm.wgsl` and `gemm_matrix.wgsl`.
const TILE: (usize, usize) = (64, 64);
const MATRIX_TILE: (usize, usize) = (128, 128);

/// Workgroups of the post step of `n` rows.
pub(crate) fn post_grid(n_embd: usize, n: usize) -> [u32; 3] {
    [n_embd.div_ceil(1024) as u32, n as u32, 1]
}

/// Segments of weights in one buffer, on the device; in tiles of one format, too.
#[derive(Clone)]
struct Table {
    format: Format,
    weights: Buffer,
    segments: Buffer,
    count: u32,
    blocks: u32,
}

/// Whether products are made in tiles, and of each its weight and its first output.
type Key = (bool, Vec<(u64, usize)>);

/// Tables by the products they are for.
#[derive(Default)]
pub(crate) struct Tables {
    made: HashMap<Key, Vec<Table>>,
}

impl Wgpu {
    /// Whether a stage can make use of these products in the dispatch that makes them: its workgroups read what others have
    /// written, and a block of weight rows has to be of one unit.
    pub(crate) fn finishes(&self, n: usize, products: &[Product<'_>]) -> bool {
        self.device.abilities.coherent && n <= SMALL && products.iter().all(|p| p.w.parts.len() == 1)
    }

    /// `out[row][to + m] = sum_k w[m][k] x[row][k]` for every product and `n` rows.
    pub(crate) fn products(&mut self, n: usize, products: &[Product<'_>], x: Matrix<'_>, out: Out<'_>) -> Result<()> {
        self.products_of_each((n, 1), products, x, out)
    }

    /// The same for `each` of every one of a step's `rows`, which decide whether there are few.
    pub(crate) fn products_of_each(
        &mut self,
        (rows, each): (usize, usize),
        products: &[Product<'_>],
        x: Matrix<'_>,
        out: Out<'_>,
    ) -> Result<()> {
        let n = rows * each;
        // A tile serves one part of the input: of narrow groups the streaming kernels make long products too.
        let tile = if self.device.abilities.paths.matrices.is_some() { MATRIX_TILE } else { TILE };
        let tiled = !small(rows) && products.iter().all(|p| p.group == p.w.m || p.group.is_multiple_of(tile.0));
        let key = (tiled, products.iter().map(|p| (p.w.id, p.to)).collect::<Vec<_>>());
        if !self.tables.made.contains_key(&key) {
            let made = self.tables_of(products, tiled.then_some(tile.0))?;
            self.tables.made.insert(key.clone(), made);
        }
        let tables = self.tables.made[&key].clone();
        if let (true, Out::Post { streams, mix }) = (tiled, out) {
            let (y, n_embd) = (self.scratch.y.clone(), self.shape.n_embd);
            self.products_of_each((rows, each), products, x, Out::Rows(Matrix { data: &y, stride: n_embd }))?;
            return self.dispatch(POST, post_grid(n_embd, n), &[0u32; 0], &[&y, mix, streams]);
        }
        let batch = match n {
            _ if tiled => tile.1 as u32,
            1 => 1,
            _ => BATCH,
        };
        let (short, stride) = match (out, n) {
            (Out::Rows(rows), 1) => (DENSE, rows.stride),
            (Out::Rows(rows), _) => (DENSE_MANY, rows.stride),
            (Out::Post { .. }, 1) => (DENSE_POST, 0),
            (Out::Post { .. }, _) => (DENSE_POST_MANY, 0),
            (Out::Finished(stage), n) => (stage.kernels[usize::from(n > 1)], stage.stride),
        };
        for table in &tables {
            let kernel = if tiled { ROWS.format(table.format) } else { short };
            let args = Args {
                n: n as u32,
                k: products[0].w.k as u32,
                x_stride: (x.stride / 4) as u32,
                out_stride: stride as u32,
                segments: table.count,
                sides: 0,
                pad: [0; 2],
                own: if let Out::Finished(stage) = out { stage.own } else { [0; 8] },
            };
            let used = if matches!(out, Out::Finished(_)) { size_of::<Args>() } else { size_of::<Args>() - 32 };
            let grid = [table.blocks, (n as u32).div_ceil(batch), 1];
            let weights = &table.weights;
            let mut buffers = vec![&table.segments, weights];
            buffers.extend((!tiled).then_some(weights));
            buffers.push(x.data);
            match out {
                Out::Rows(rows) => buffers.push(rows.data),
                Out::Post { streams, mix } => buffers.extend([streams, mix]),
                Out::Finished(stage) => buffers.extend(stage.buffers),
            }
            // Codes and scales are of different types, where there are scales.
            buffers.extend((tiled && table.format == Format::Q8).then_some(weights));
            let args = &bytemuck::bytes_of(&args)[..used];
            if let (Out::Finished(Finish { waits: true, .. }), [_]) = (out, tables.as_slice()) {
                let buffers = buffers.into_iter().cloned().collect();
                self.hold(Held { kernel, grid, args: args.to_vec(), buffers })?;
                continue;
            }
            self.dispatch_bytes(kernel, grid, args, &buffers)?;
        }
        Ok(())
    }

    /// Adds `sides` workgroups of another stage in front of products that wait, if there are any: parameters and buffers behind
    /// theirs, and the kernels that are both.
    pub(crate) fn join(
        &mut self,
        kernels: [Kernel; 2],
        sides: u32,
        own: [u32; 8],
        buffers: &[&Buffer],
    ) -> Result<bool> {
        let Some(held) = self.recorder.held.take() else { return Ok(false) };
        let mut args: Args = bytemuck::pod_read_unaligned(&held.args);
        (args.sides, args.own) = (sides, own);
        let [across, down, _] = held.grid;
        let all: Vec<&Buffer> = held.buffers.iter().chain(buffers.iter().copied()).collect();
        self.dispatch(kernels[usize::from(args.n > 1)], [across + sides, down, 1], &args, &all)?;
        Ok(true)
    }

    /// Of products that are made in tiles, `tile` says how many weight rows one has.
    fn tables_of(&mut self, products: &[Product<'_>], tile: Option<usize>) -> Result<Vec<Table>> {
        let mut all: Vec<(Buffer, Format, Vec<Segment>, u32)> = Vec::new();
        for product in products {
            let format = product.w.format;
            for part in &product.w.parts {
                let fits = |(buffer, other, ..): &(Buffer, Format, Vec<Segment>, u32)| {
                    buffer.id == part.data.id && (tile.is_none() || *other == format)
                };
                let at = all.iter().position(fits).unwrap_or_else(|| {
                    all.push((part.data.clone(), format, Vec::new(), 0));
                    all.len() - 1
                });
                let (_, _, segments, blocks) = &mut all[at];
                segments.push(Segment {
                    codes: part.codes / 4,
                    scales: part.scales,
                    rows: part.rows as u32,
                    first: *blocks,
                    to: (product.to + part.first) as u32,
                    format: format as u32,
                    group_rows: product.group as u32,
                    group_first: part.first as u32,
                });
                *blocks += part.rows.div_ceil(tile.unwrap_or(BLOCK)) as u32;
            }
        }
        let table = |(weights, format, segments, blocks): (Buffer, Format, Vec<Segment>, u32)| {
            let buffer = self.device.alloc(size_of_val(segments.as_slice()))?;
            self.device.write(&buffer, 0, bytemuck::cast_slice(&segments))?;
            Ok(Table { format, weights, segments: buffer, count: segments.len() as u32, blocks })
        };
        all.into_iter().map(table).collect()
    }
}
