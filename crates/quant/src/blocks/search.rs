//! The two searches for a scale that the block formats share (gguf.md section 7). Owns the rounding; knows no format.

/// Round to nearest, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves the integer in the low bits.
pub(super) fn nint(x: f32) -> i32 {
    (((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32) - 0x0040_0000
}

/// Sum of squares in index order.
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, &x| sum + x * x)
}

/// Below this a group counts as zero.
pub(super) const TINY: f32 = 1e-15;

/// How [`scale_and_min`] searches.
pub(super) struct Asymmetric {
    /// Largest code.
    pub(super) top: u8,
    /// The steps try `(first + step * t + top) / range` for t = 0..=steps.
    pub(super) first: f32,
    pub(super) step: f32,
    pub(super) steps: u8,
    /// Errors count by magnitude instead of by square.
    pub(super) absolute: bool,
}

/// `x` is about `scale * code - min`, and `min` is not negative.
pub(super) struct ScaleAndMin<const LEN: usize> {
    pub(super) scale: f32,
    pub(super) min: f32,
    pub(super) codes: [u8; LEN],
}

/// Search A: the scale and offset with the smallest weighted error.
pub(super) fn scale_and_min<const LEN: usize>(x: &[f32; LEN], w: &[f32; LEN], how: &Asymmetric) -> ScaleAndMin<LEN> {
    let top = f32::from(how.top);
    let (mut lo, mut hi) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (0.0, 0.0);
    for (&x, &w) in x.iter().zip(w) {
        lo = if x < lo { x } else { lo };
        hi = if x > hi { x } else { hi };
        sum_w += w;
        sum_x += w * x;
    }
    if lo > 0.0 {
        lo = 0.0;
    }
    if hi <= lo {
        return ScaleAndMin { scale: 0.0, min: -lo, codes: [0; LEN] };
    }
    let inverse = top / (hi - lo);
    let mut scale = 1.0 / inverse;
    let mut codes = codes_of(x, inverse, lo, how.top);
    let mut best = error(x, w, &codes, scale, lo, how.absolute);
    for t in 0..=how.steps {
        let inverse = (how.first + how.step * f32::from(t) + top) / (hi - lo);
        let trial = codes_of(x, inverse, lo, how.top);
        let Some((trial_scale, trial_lo)) = fit(x, w, &trial, sum_w, sum_x) else { continue };
        let trial_error = error(x, w, &trial, trial_scale, trial_lo, how.absolute);
        if trial_error < best {
            best = trial_error;
            // Later steps measure from the new offset, but to the old upper end.
            (codes, scale, lo) = (trial, trial_scale, trial_lo);
        }
    }
    ScaleAndMin { scale, min: -lo, codes }
}

fn codes_of<const LEN: usize>(x: &[f32; LEN], inverse: f32, lo: f32, top: u8) -> [u8; LEN] {
    x.map(|x| nint(inverse * (x - lo)).clamp(0, i32::from(top)) as u8)
}

fn error<const LEN: usize>(
    x: &[f32; LEN],
    w: &[f32; LEN],
    codes: &[u8; LEN],
    scale: f32,
    lo: f32,
    absolute: bool,
) -> f32 {
    let mut sum = 0.0;
    for i in 0..LEN {
        let diff = scale * f32::from(codes[i]) + lo - x[i];
        sum += w[i] * if absolute { diff.abs() } else { diff * diff };
    }
    sum
}

/// Least squares for given codes, the offset at most zero; `None` if they do not determine both.
fn fit<const LEN: usize>(
    x: &[f32; LEN],
    w: &[f32; LEN],
    codes: &[u8; LEN],
    sum_w: f32,
    sum_x: f32,
) -> Option<(f32, f32)> {
    let (mut sum_l, mut sum_ll, mut sum_xl) = (0.0, 0.0, 0.0);
    for i in 0..LEN {
        let l = f32::from(codes[i]);
        sum_l += w[i] * l;
        sum_ll += w[i] * l * l;
        sum_xl += w[i] * l * x[i];
    }
    let determinant = sum_w * sum_ll - sum_l * sum_l;
    if determinant > 0.0 {
        let scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let lo = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
        return Some(if lo > 0.0 { (sum_xl / sum_ll, 0.0) } else { (scale, lo) });
    }
    None
}

/// Search B: a scale without an offset, codes 0 to `top`. Codes are bytes: those of negative values wrap.
pub(super) fn scale_only<const LEN: usize>(x: &[f32; LEN], w: &[f32; LEN], top: u8) -> (f32, [u8; LEN]) {
    let top_code = i32::from(top);
    let top = f32::from(top);
    let hi = x.iter().fold(0.0_f32, |hi, &x| if x > hi { x } else { hi });
    if hi < TINY {
        return (0.0, [0; LEN]);
    }
    let mut inverse = top / hi;
    let mut best = {
        let scale = 1.0 / inverse;
        square_error(x, w, scale, |x| i32::from(nint(inverse * x) as u8))
    };
    for t in (-4_i8..=4).filter(|&t| t != 0) {
        let trial = (0.1 * f32::from(t) + top) / hi;
        let error = square_error(x, w, 1.0 / trial, |x| nint(trial * x).min(top_code));
        if error < best {
            (best, inverse) = (error, trial);
        }
    }
    let mut codes = [0_u8; LEN];
    let (mut sum_xl, mut sum_ll) = (0.0, 0.0);
    for i in 0..LEN {
        let l = nint(inverse * x[i]).min(top_code);
        codes[i] = l as u8;
        let l = l as f32;
        sum_xl += w[i] * x[i] * l;
        sum_ll += w[i] * l * l;
    }
    for _ in 0..5 {
        if !refine(x, w, top_code, &mut codes, &mut sum_xl, &mut sum_ll) {
            break;
        }
    }
    (if sum_ll > 0.0 { sum_xl / sum_ll } else { 0.0 }, codes)
}

fn square_error<const LEN: usize>(x: &[f32; LEN], w: &[f32; LEN], scale: f32, code: impl Fn(f32) -> i32) -> f32 {
    let mut sum = 0.0;
    for i in 0..LEN {
        let diff = x[i] - scale * code(x[i]) as f32;
        sum += w[i] * diff * diff;
    }
    sum
}

/// Gives each element the code that the scale of all others asks for, if that helps. True if any code changed.
fn refine<const LEN: usize>(
    x: &[f32; LEN],
    w: &[f32; LEN],
    top: i32,
    codes: &mut [u8; LEN],
    sum_xl: &mut f32,
    sum_ll: &mut f32,
) -> bool {
    let mut changed = false;
    for i in 0..LEN {
        let l = f32::from(codes[i]);
        let mut xl = *sum_xl - w[i] * x[i] * l;
        let mut ll = *sum_ll - w[i] * l * l;
        if !(xl > 0.0 && ll > 0.0) {
            continue;
        }
        let code = nint(x[i] * ll / xl).min(top);
        if code == i32::from(codes[i]) {
            continue;
        }
        let l = code as f32;
        xl += w[i] * x[i] * l;
        ll += w[i] * l * l;
        if xl * xl * *sum_ll > *sum_xl * *sum_xl * ll {
            codes[i] = code as u8;
            (*sum_xl, *sum_ll) = (xl, ll);
            changed = true;
        }
    }
    changed
}
