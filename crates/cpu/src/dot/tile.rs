//! Register tiles over [`Lanes`]: products accumulated over `k`, and rows mixed by weights.

use super::lanes::Lanes;

/// Lanes of an accumulator.
pub(crate) const LANES: usize = 16;

/// Sum of an accumulator's lanes by the one fixed tree.
#[inline(always)]
pub(super) fn reduce(lanes: &[f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// See `Isa::tile`. `R` weight rows by `C` columns are held in registers at a time.
#[inline(always)]
pub(super) unsafe fn tile<V: Lanes, const R: usize, const C: usize>(
    w: &[f32],
    stride: usize,
    n: usize,
    xs: &[&[f32]],
    acc: &mut [f32],
) {
    let rows = acc.len() / (LANES * xs.len().max(1));
    let mut c = 0;
    while c < xs.len() {
        let columns = if xs.len() - c >= C { C } else { 1 };
        let mut r = 0;
        while r < rows {
            let height = if rows - r >= R { R } else { 1 };
            let panel = &w[r * stride..];
            let at = (c * rows + r) * LANES;
            // SAFETY: the caller's contract; the slices were checked by `Isa::tile`.
            unsafe {
                match (height == R, columns == C) {
                    (true, true) => block::<V, R, C>(panel, stride, n, &xs[c..], &mut acc[at..], rows),
                    (true, false) => block::<V, R, 1>(panel, stride, n, &xs[c..], &mut acc[at..], rows),
                    (false, true) => block::<V, 1, C>(panel, stride, n, &xs[c..], &mut acc[at..], rows),
                    (false, false) => block::<V, 1, 1>(panel, stride, n, &xs[c..], &mut acc[at..], rows),
                }
            }
            r += height;
        }
        c += columns;
    }
}

#[inline(always)]
unsafe fn block<V: Lanes, const R: usize, const C: usize>(
    w: &[f32],
    stride: usize,
    n: usize,
    xs: &[&[f32]],
    acc: &mut [f32],
    rows: usize,
) {
    let (w, acc) = (w.as_ptr(), acc.as_mut_ptr());
    let xs: [*const f32; C] = std::array::from_fn(|c| xs[c].as_ptr());
    // SAFETY: rows, columns and accumulators of the block lie inside the slices; the tail is copied to padded rows.
    unsafe {
        let mut sums: [[V; R]; C] =
            std::array::from_fn(|c| std::array::from_fn(|r| V::load(acc.add((c * rows + r) * LANES))));
        let whole = n - n % LANES;
        let mut k = 0;
        while k < whole {
            let x: [V; C] = std::array::from_fn(|c| V::load(xs[c].add(k)));
            for r in 0..R {
                let w = V::load(w.add(r * stride + k));
                for c in 0..C {
                    sums[c][r] = w.fma(x[c], sums[c][r]);
                }
            }
            k += LANES;
        }
        if whole < n {
            let x: [V; C] = std::array::from_fn(|c| padded(xs[c].add(whole), n - whole));
            for r in 0..R {
                let w: V = padded(w.add(r * stride + whole), n - whole);
                for c in 0..C {
                    sums[c][r] = w.fma(x[c], sums[c][r]);
                }
            }
        }
        for (c, column) in sums.iter().enumerate() {
            for (r, sum) in column.iter().enumerate() {
                sum.store(acc.add((c * rows + r) * LANES));
            }
        }
    }
}

#[inline(always)]
unsafe fn padded<V: Lanes>(p: *const f32, n: usize) -> V {
    let mut row = [0f32; LANES];
    // SAFETY: `n < LANES` values are readable at `p`.
    unsafe {
        row[..n].copy_from_slice(std::slice::from_raw_parts(p, n));
        V::load(row.as_ptr())
    }
}

/// See `Isa::mix`. `H` heads by `D` vectors of the row are held in registers at a time.
#[inline(always)]
pub(super) unsafe fn mix<V: Lanes, const H: usize, const D: usize>(p: &[f32], rows: &[f32], n: usize, out: &mut [f32]) {
    let (heads, js) = (out.len() / n, rows.len() / n);
    let whole = n - n % LANES;
    let mut h = 0;
    while h < heads {
        let height = if heads - h >= H { H } else { 1 };
        let mut d = 0;
        while d < whole {
            let width = if whole - d >= D * LANES { D } else { 1 };
            let at = h * n + d;
            // SAFETY: the caller's contract; the slices were checked by `Isa::mix`.
            unsafe {
                match (height == H, width == D) {
                    (true, true) => mix_block::<V, H, D>(&p[h * js..], js, &rows[d..], n, &mut out[at..]),
                    (true, false) => mix_block::<V, H, 1>(&p[h * js..], js, &rows[d..], n, &mut out[at..]),
                    (false, true) => mix_block::<V, 1, D>(&p[h * js..], js, &rows[d..], n, &mut out[at..]),
                    (false, false) => mix_block::<V, 1, 1>(&p[h * js..], js, &rows[d..], n, &mut out[at..]),
                }
            }
            d += width * LANES;
        }
        for (h, d) in (h..h + height).flat_map(|h| (whole..n).map(move |d| (h, d))) {
            for j in 0..js {
                out[h * n + d] = p[h * js + j].mul_add(rows[j * n + d], out[h * n + d]);
            }
        }
        h += height;
    }
}

#[inline(always)]
unsafe fn mix_block<V: Lanes, const H: usize, const D: usize>(
    p: &[f32],
    js: usize,
    rows: &[f32],
    n: usize,
    out: &mut [f32],
) {
    let (p, rows, out) = (p.as_ptr(), rows.as_ptr(), out.as_mut_ptr());
    // SAFETY: `H` heads, `D` vectors and all `js` rows lie inside the slices.
    unsafe {
        let mut sums: [[V; D]; H] =
            std::array::from_fn(|h| std::array::from_fn(|d| V::load(out.add(h * n + d * LANES))));
        for j in 0..js {
            let row: [V; D] = std::array::from_fn(|d| V::load(rows.add(j * n + d * LANES)));
            for (h, sums) in sums.iter_mut().enumerate() {
                let weight = V::splat(*p.add(h * js + j));
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum = weight.fma(value, *sum);
                }
            }
        }
        for (h, sums) in sums.iter().enumerate() {
            for (d, sum) in sums.iter().enumerate() {
                sum.store(out.add(h * n + d * LANES));
            }
        }
    }
}
