//! Products of a weight matrix with many activation rows, cut into tasks for all cores. Weight rows are decoded where they
//! lie in the file, a panel at a time, into a buffer that stays in the first-level cache.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use bytes::Bytes;
use ds4_gguf::{DType, Tensor};
use rayon::prelude::*;

use super::Isa;
use super::tile::{LANES, reduce};

/// Weight rows of a panel.
const PANEL_ROWS: usize = 16;
/// Weight rows of the tallest register tile.
const TILE_ROWS: usize = 8;
/// Elements of a panel row: 16 rows of 512 floats fill 32 KiB.
const PANEL_WIDTH: usize = 512;
/// File bytes that are worth a task of their own.
const TASK_BYTES: usize = 128 << 10;

/// A tensor seen as `n_rows` rows of `n_in` values.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    dtype: DType,
    data: Bytes,
    pub(crate) n_in: usize,
    pub(crate) n_rows: usize,
    row_bytes: usize,
}

impl Matrix {
    pub(crate) fn new(tensor: &Tensor) -> Matrix {
        let (n_in, n_rows, row_bytes) = (tensor.n_in(), tensor.n_rows(), tensor.row_bytes());
        Matrix { dtype: tensor.dtype, data: tensor.data.clone(), n_in, n_rows, row_bytes }
    }

    /// Decodes one row.
    pub(crate) fn decode_row(&self, isa: Isa, row: usize, out: &mut [f32]) {
        isa.decode(self.dtype, &self.data[row * self.row_bytes..(row + 1) * self.row_bytes], out);
    }

    /// Decodes `columns` of a row; both ends lie on block boundaries. First it asks for what the same row of the next panel
    /// holds: panels are too narrow for the machine to see a stream.
    fn decode(&self, isa: Isa, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let at = |column: usize| column / self.dtype.block_len() * self.dtype.block_bytes();
        let bytes = at(columns.start)..at(columns.end);
        let start = row * self.row_bytes;
        let next = if columns.end < self.n_in { bytes.end } else { PANEL_ROWS * self.row_bytes };
        prefetch(&self.data, start + next..start + next + bytes.len());
        isa.decode(self.dtype, &self.data[start + bytes.start..start + bytes.end], out);
    }
}

/// Asks the memory system for bytes that will be read soon. A range beyond the data is harmless.
fn prefetch(data: &[u8], range: Range<usize>) {
    #[cfg(target_arch = "x86_64")]
    for at in range.step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch neither faults nor changes what the program sees.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, range);
}

/// Where a product's results go: columns `offset..offset + width` of a row-major buffer with rows of `stride`.
pub(crate) struct Out<'a> {
    data: *mut f32,
    len: usize,
    stride: usize,
    offset: usize,
    width: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: the view is an exclusive borrow of floats, cut so that no two views or tasks write the same element.
unsafe impl Send for Out<'_> {}
// SAFETY: as above; shared references write through `put` only, at rows and columns that one task owns.
unsafe impl Sync for Out<'_> {}

impl<'a> Out<'a> {
    /// The whole buffer, rows of `width` values.
    pub(crate) fn new(data: &'a mut [f32], width: usize) -> Out<'a> {
        let [out] = Out::columns(data, [width]);
        out
    }

    /// Neighbouring column ranges of one buffer whose rows are their widths together.
    pub(crate) fn columns<const N: usize>(data: &'a mut [f32], widths: [usize; N]) -> [Out<'a>; N] {
        let (stride, len, data) = (widths.iter().sum(), data.len(), data.as_mut_ptr());
        let mut next = 0;
        widths.map(|width| {
            let offset = next;
            next += width;
            Out { data, len, stride, offset, width, lifetime: PhantomData }
        })
    }

    /// As [`Out::columns`], `n` ranges of equal width.
    pub(crate) fn groups(data: &'a mut [f32], n: usize, width: usize) -> Vec<Out<'a>> {
        let (len, data) = (data.len(), data.as_mut_ptr());
        let view = |i: usize| Out { data, len, stride: n * width, offset: i * width, width, lifetime: PhantomData };
        (0..n).map(view).collect()
    }

    fn put(&self, row: usize, column: usize, values: &[f32]) {
        let at = row * self.stride + self.offset + column;
        assert!(column + values.len() <= self.width && at + values.len() <= self.len, "inside the view");
        // SAFETY: in bounds by the assertion; tasks own disjoint columns of a view, views disjoint columns of a buffer.
        unsafe { self.data.add(at).copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    }
}

/// `out[c][m] = w[rows.start + m] . xs[c]`
pub(crate) struct Product<'a> {
    pub(crate) w: &'a Matrix,
    pub(crate) rows: Range<usize>,
    pub(crate) xs: &'a [&'a [f32]],
    pub(crate) out: Out<'a>,
}

impl<'a> Product<'a> {
    /// Every row of `w`.
    pub(crate) fn new(w: &'a Matrix, xs: &'a [&'a [f32]], out: Out<'a>) -> Product<'a> {
        Product { w, rows: 0..w.n_rows, xs, out }
    }
}

/// Runs the products side by side on the current pool.
pub(crate) fn run(isa: Isa, products: &[Product<'_>]) {
    let threads = rayon::current_num_threads();
    let mut tasks = Vec::new();
    for product in products.iter().filter(|product| !product.xs.is_empty()) {
        assert_eq!(product.rows.len(), product.out.width, "a column for every weight row");
        let step = task_rows(product, threads);
        tasks.extend(product.rows.clone().step_by(step).map(|row| (product, row..(row + step).min(product.rows.end))));
    }
    if tasks.len() == 1 {
        for (product, rows) in tasks {
            task(isa, product, rows);
        }
    } else {
        tasks.into_par_iter().with_max_len(1).for_each(|(product, rows)| task(isa, product, rows));
    }
}

/// Enough rows to be worth a task, few enough to keep every thread busy; whole tiles.
fn task_rows(product: &Product<'_>, threads: usize) -> usize {
    let worth = TASK_BYTES / product.w.row_bytes / product.xs.len().min(8);
    let share = product.rows.len() / (2 * threads);
    let rows = worth.min(share);
    if rows >= PANEL_ROWS { rows / PANEL_ROWS * PANEL_ROWS } else { TILE_ROWS }
}

/// Sixteen lanes on a cache line of their own.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// Scratch of one thread: a decoded panel and the accumulators of its products.
struct Scratch {
    panel: Vec<Line>,
    acc: Vec<Line>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { panel: Vec::new(), acc: Vec::new() }) };
}

fn task(isa: Isa, product: &Product<'_>, rows: Range<usize>) {
    SCRATCH.with_borrow_mut(|scratch| {
        for start in rows.clone().step_by(PANEL_ROWS) {
            panel(isa, product, start..(start + PANEL_ROWS).min(rows.end), scratch);
        }
    });
}

/// Up to `PANEL_ROWS` weight rows against every column, in one pass over the weights.
fn panel(isa: Isa, product: &Product<'_>, rows: Range<usize>, scratch: &mut Scratch) {
    let Product { w, xs, out, .. } = product;
    let (height, n) = (rows.len(), w.n_in);
    scratch.panel.resize(PANEL_ROWS * PANEL_WIDTH / LANES, Line([0.0; LANES]));
    scratch.acc.clear();
    scratch.acc.resize(xs.len() * height, Line([0.0; LANES]));
    let panel: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch.panel);
    let mut columns = Vec::with_capacity(xs.len());
    for k in (0..n).step_by(PANEL_WIDTH) {
        let end = (k + PANEL_WIDTH).min(n);
        for (row, out) in rows.clone().zip(panel.chunks_mut(PANEL_WIDTH)) {
            w.decode(isa, row, k..end, &mut out[..end - k]);
        }
        columns.clear();
        columns.extend(xs.iter().map(|x| &x[k..end]));
        isa.tile(panel, PANEL_WIDTH, end - k, &columns, bytemuck::cast_slice_mut(&mut scratch.acc));
    }
    let mut sums = [0f32; PANEL_ROWS];
    for (c, acc) in scratch.acc.chunks(height).enumerate() {
        for (sum, lanes) in sums.iter_mut().zip(acc) {
            *sum = reduce(&lanes.0);
        }
        out.put(c, rows.start - product.rows.start, &sums[..height]);
    }
}
