//! IQ2_XXS: 256 values in 8 groups of 32; each 8 share a row of a fixed grid of magnitudes and an even number of minus
//! signs, each 32 a four-bit scale. Owns the search among rows; the grid is the format's (`ds4_gguf::tables`).

use std::sync::OnceLock;

use ds4_gguf::tables::IQ2_XXS_GRID;
use half::f16;

use super::search::{TINY, nint, scale_only, sum_of_squares};

/// Magnitudes stand for 1, 3, 5; a level is 0, 1 or 2.
const TOP_LEVEL: i32 = 2;
/// Tuples of eight levels, two bits each.
const TUPLES: usize = 1 << 16;

/// The grid's rows as levels, and for every tuple of levels the row that it is or the rows that are near.
pub(super) struct Grid {
    rows: [[u8; 8]; 256],
    entries: Vec<Entry>,
    neighbours: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Entry {
    Row(u8),
    /// A range of `Grid::neighbours`.
    Near {
        start: u32,
        len: u16,
    },
    /// A tuple with a level of 3, which is none.
    Never,
}

impl Grid {
    /// Built on first use.
    pub(super) fn get() -> &'static Self {
        static GRID: OnceLock<Grid> = OnceLock::new();
        GRID.get_or_init(Self::new)
    }

    fn new() -> Self {
        let rows = IQ2_XXS_GRID.map(|row| row.to_le_bytes().map(|magnitude| magnitude / 16));
        let mut grid = Self { rows, entries: vec![Entry::Never; TUPLES], neighbours: Vec::new() };
        for tuple in 0..TUPLES {
            let levels: [u8; 8] = std::array::from_fn(|i| (tuple >> (2 * i) & 3) as u8);
            if levels.iter().all(|&level| i32::from(level) <= TOP_LEVEL) {
                grid.entries[tuple] = grid.entry(levels);
            }
        }
        grid
    }

    /// Near are all rows at the two smallest distances, nearest first, then by index.
    fn entry(&mut self, levels: [u8; 8]) -> Entry {
        let distance =
            |row: &[u8; 8]| -> u32 { row.iter().zip(levels).map(|(&a, b)| 4 * u32::from(a.abs_diff(b)).pow(2)).sum() };
        let mut order: Vec<(u32, u8)> = self.rows.iter().map(distance).zip(0..=255).collect();
        order.sort_unstable();
        if order[0].0 == 0 {
            return Entry::Row(order[0].1);
        }
        let second = order.iter().map(|&(d, _)| d).find(|&d| d > order[0].0).unwrap_or(order[0].0);
        let near = order.iter().take_while(|&&(d, _)| d <= second).map(|&(_, row)| row);
        let start = self.neighbours.len();
        self.neighbours.extend(near);
        Entry::Near { start: start as u32, len: (self.neighbours.len() - start) as u16 }
    }

    /// The row of these levels, or the neighbour with the smallest weighted error at `scale`.
    fn row(&self, levels: [u8; 8], x: &[f32; 8], weights: &[f32; 8], scale: f32) -> u8 {
        let tuple = levels.iter().rev().fold(0, |tuple, &level| tuple << 2 | usize::from(level));
        match self.entries[tuple] {
            Entry::Row(row) => row,
            Entry::Near { start, len } => {
                let near = &self.neighbours[start as usize..][..usize::from(len)];
                self.nearest(near, x, weights, scale)
            }
            Entry::Never => unreachable!("levels are clamped to 0..=2"),
        }
    }

    fn nearest(&self, near: &[u8], x: &[f32; 8], weights: &[f32; 8], scale: f32) -> u8 {
        // Each element has one of three levels: their errors once, then only sums.
        let errors: [[f32; 3]; 8] = std::array::from_fn(|i| {
            [1.0, 3.0, 5.0].map(|q| {
                let diff = scale * q - x[i];
                weights[i] * diff * diff
            })
        });
        let (mut best, mut chosen) = (f32::MAX, near[0]);
        for &row in near {
            let levels = &self.rows[usize::from(row)];
            let error = (0..8).fold(0.0, |sum, i| sum + errors[i][usize::from(levels[i])]);
            if error < best {
                (best, chosen) = (error, row);
            }
        }
        chosen
    }
}

/// One group while it is searched.
struct Group<'a> {
    grid: &'a Grid,
    /// Magnitudes, those of flipped elements negative.
    x: [f32; 32],
    w: [f32; 32],
    roots: [f32; 32],
}

/// What a group becomes.
struct Found {
    scale: f32,
    rows: [u8; 4],
    signs: [u8; 4],
}

/// `v`: one weight per column.
pub(super) fn encode(grid: &Grid, x: &[f32; 256], v: &[f32; 256]) -> [u8; 66] {
    let power = sum_of_squares(x) / 256.0;
    let groups: [Found; 8] = std::array::from_fn(|g| {
        let (x, v) = (&x.as_chunks::<32>().0[g], &v.as_chunks::<32>().0[g]);
        search(grid, x, v, power)
    });
    let largest = groups.iter().fold(0.0_f32, |m, g| if g.scale > m { g.scale } else { m });
    let mut out = [0; 66];
    if largest == 0.0 {
        return out;
    }
    let d = largest / 31.0;
    let inverse = 1.0 / d;
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (group, out) in groups.iter().zip(out[2..].as_chunks_mut::<8>().0) {
        let code = nint(0.5 * (inverse * group.scale - 1.0)).clamp(0, 15) as u32;
        let signs = group.signs.iter().rev().fold(0_u32, |word, &s| word << 7 | u32::from(s));
        out[..4].copy_from_slice(&group.rows);
        out[4..].copy_from_slice(&(signs | code << 28).to_le_bytes());
    }
    out
}

fn search(grid: &Grid, x: &[f32; 32], v: &[f32; 32], power: f32) -> Found {
    let w: [f32; 32] = std::array::from_fn(|i| v[i] * (power + x[i] * x[i]).sqrt());
    let mut group = Group { grid, x: *x, w, roots: w.map(f32::sqrt) };
    let signs = group.take_signs();
    // Nothing of a group without a scale is written, not even its signs.
    let empty = Found { scale: 0.0, rows: [0; 4], signs: [0; 4] };
    if group.x.iter().fold(f32::MIN, |m, &x| if x > m { x } else { m }) < TINY {
        return empty;
    }
    let (first, _) = scale_only(&group.x, &group.w, 4);
    let reach = first * 3.0;
    if reach <= 0.0 {
        return empty;
    }
    let (mut scale, mut best, mut rows) = (first, 0.0, None);
    for t in -6_i8..=6 {
        let inverse = (5.0 + f32::from(t) * 0.1) / reach;
        let trial = group.rows(inverse, 1.0 / inverse);
        let (p, q) = group.sums(trial);
        if q > 0.0 && p * p > best * q {
            scale = p / q;
            best = scale * p;
            rows = Some(trial);
        }
    }
    if scale > 0.0 {
        let chosen = group.rows(1.0 / scale, scale);
        let (p, q) = group.sums(chosen);
        if q > 0.0 {
            scale = p / q;
        }
        rows = Some(chosen);
    }
    // A scale that is not positive was adopted together with its rows: the one before the steps is positive.
    let rows = rows.unwrap_or_default();
    if scale < 0.0 {
        return Found { scale: -scale, rows, signs: signs.map(|s| !s & 127) };
    }
    Found { scale, rows, signs }
}

impl Group<'_> {
    /// Leaves magnitudes behind; the element that matters least is flipped where the number of minus signs was odd.
    fn take_signs(&mut self) -> [u8; 4] {
        std::array::from_fn(|k| {
            let (x, w) = (&mut self.x.as_chunks_mut::<8>().0[k], &self.w.as_chunks::<8>().0[k]);
            let cost: [f32; 8] = std::array::from_fn(|i| w[i] * x[i] * x[i]);
            let mut signs = 0_u8;
            for (i, x) in x.iter_mut().enumerate() {
                if *x < 0.0 {
                    *x = -*x;
                    signs |= 1 << i;
                }
            }
            if signs.count_ones() % 2 == 1 {
                let least = (1..8).fold(0, |least, i| if cost[i] < cost[least] { i } else { least });
                x[least] = -x[least];
                signs ^= 1 << least;
            }
            signs & 127
        })
    }

    /// The rows of the levels at this inverse scale.
    fn rows(&self, inverse: f32, scale: f32) -> [u8; 4] {
        std::array::from_fn(|k| {
            let x = &self.x.as_chunks::<8>().0[k];
            let levels = x.map(|x| nint(0.5 * (inverse * x - 1.0)).clamp(0, TOP_LEVEL) as u8);
            self.grid.row(levels, x, &self.roots.as_chunks::<8>().0[k], scale)
        })
    }

    /// Weighted sums of values times magnitudes and of magnitudes squared.
    fn sums(&self, rows: [u8; 4]) -> (f32, f32) {
        let (mut p, mut sum) = (0.0, 0.0);
        for i in 0..32 {
            let level = self.grid.rows[usize::from(rows[i / 8])][i % 8];
            let q = f32::from(2 * level + 1);
            p += self.w[i] * self.x[i] * q;
            sum += self.w[i] * q * q;
        }
        (p, sum)
    }
}
