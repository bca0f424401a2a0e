//! Root-mean-square norms and the scalar functions of the model (model.md 2.1, 2.5).

use crate::dot::Isa;

/// `1 / sqrt(mean(x^2) + eps)`
pub(crate) fn inverse_rms(isa: Isa, x: &[f32], eps: f32) -> f32 {
    1.0 / (isa.dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// `x * inverse_rms(x)`
pub(crate) fn rms(isa: Isa, x: &mut [f32], eps: f32) {
    let scale = inverse_rms(isa, x, eps);
    x.iter_mut().for_each(|x| *x *= scale);
}

/// `x * inverse_rms(x) * w`
pub(crate) fn rms_weighted(isa: Isa, x: &mut [f32], w: &[f32], eps: f32) {
    let scale = inverse_rms(isa, x, eps);
    x.iter_mut().zip(w).for_each(|(x, w)| *x = *x * scale * w);
}

pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

pub(crate) fn softplus(x: f32) -> f32 {
    if x > 20.0 {
        x
    } else if x < -20.0 {
        x.exp()
    } else {
        x.exp().ln_1p()
    }
}

/// Clamped SwiGLU: one-sided for the gate, two-sided for the linear half (model.md 8).
pub(crate) fn swiglu(gate: f32, up: f32, clamp: f32) -> f32 {
    silu(gate.min(clamp)) * up.clamp(-clamp, clamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn router_scores_match_the_reference_points() {
        for (x, y) in [(-5.0, 0.081_947_2), (0.0, 0.832_554_6), (1.0, 1.145_976_3), (5.0, 2.237_569_1)] {
            let found: f32 = softplus(x).sqrt();
            assert!((found - y).abs() < 1e-6, "{x}: {found} {y}");
        }
    }
}
