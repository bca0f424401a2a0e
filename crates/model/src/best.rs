//! The best token of a row of logits: the rule of greedy decoding, which the host follows here and a device may follow by
//! itself.

/// The best token of a row: 8 bytes, little endian, as a device leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Best {
    /// Id of the highest logit, the lowest id on ties. If a logit is not finite, the lowest id whose logit is not.
    pub id: u32,
    /// Its logit: finite if and only if all logits of the row are.
    pub logit: f32,
}

impl Best {
    /// The best of `logits` `[n_vocab]`; of none at all, id 0 with what is not a number. Part of every greedy step, so it goes
    /// through memory in whole vectors.
    pub fn of(logits: &[f32]) -> Best {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let mut finite = true;
        let (chunks, rest) = logits.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &z) in lanes.iter_mut().zip(chunk) {
                *lane = if z > *lane { z } else { *lane };
                finite &= z.is_finite();
            }
        }
        finite &= rest.iter().all(|z| z.is_finite());
        let highest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
        let at = if finite { first(logits, |z| z == highest) } else { first(logits, |z| !z.is_finite()) };
        at.map_or(Best { id: 0, logit: f32::NAN }, |at| Best { id: at as u32, logit: logits[at] })
    }
}

/// Place of the first logit for which something holds, without a branch for each.
fn first(logits: &[f32], holds: impl Fn(f32) -> bool) -> Option<usize> {
    let any = |chunk: &[f32]| chunk.iter().fold(false, |any, &z| any | holds(z));
    let at = LANES * logits.chunks(LANES).position(any)?;
    logits[at..].iter().position(|&z| holds(z)).map(|i| at + i)
}

/// Logits that are compared at once.
const LANES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn best(logits: &[f32]) -> (u32, u32) {
        let Best { id, logit } = Best::of(logits);
        (id, logit.to_bits())
    }

    #[test]
    fn the_best_is_the_first_of_the_highest() {
        let mut logits: Vec<f32> = (0..1000u32).map(|i| (i * 7919 % 997) as f32 - 2000.0).collect();
        for at in [999, 0, 500, 31, 32, 992] {
            let before = std::mem::replace(&mut logits[at], -1.0);
            assert_eq!(Best::of(&logits), Best { id: at as u32, logit: -1.0 });
            logits[at] = before;
        }
        (logits[70], logits[900]) = (f32::MAX, f32::MAX);
        assert_eq!(Best::of(&logits).id, 70);
        assert_eq!(best(&[-1.0, -0.0, 0.0]), (1, (-0.0f32).to_bits()), "zeros are equal, and stay what they are");
        assert_eq!(best(&[f32::MIN; 3]), (0, f32::MIN.to_bits()));
    }

    #[test]
    fn what_is_not_finite_is_found_first() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 40, 99] {
                let mut logits = [1.0; 100];
                (logits[at], logits[99]) = (wrong, f32::NAN);
                assert_eq!(best(&logits), (at as u32, logits[at].to_bits()));
            }
        }
        assert!(Best::of(&[]).logit.is_nan());
    }
}
