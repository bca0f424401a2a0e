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
    /// The best of `logits` `[n_vocab]`; of none at all, id 0 with what is not a number. Part of every greedy step that the host
    /// decides, so it goes through memory once, in whole vectors.
    pub fn of(logits: &[f32]) -> Best {
        let (mut highest, mut begin, mut finite) = (f32::NEG_INFINITY, 0, true);
        for (i, block) in logits.chunks(BLOCK).enumerate() {
            let top = top(block);
            finite &= top.is_some();
            if let Some(top) = top.filter(|&top| top > highest) {
                (highest, begin) = (top, i * BLOCK);
            }
        }
        let mut rest = (begin..).zip(&logits[begin..]);
        let found =
            if finite { rest.find(|(_, z)| **z == highest) } else { (0..).zip(logits).find(|(_, z)| !z.is_finite()) };
        found.map_or(Best { id: 0, logit: f32::NAN }, |(id, &logit)| Best { id: id as u32, logit })
    }
}

/// The highest logit of a block, if all are finite.
fn top(block: &[f32]) -> Option<f32> {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut finite = true;
    let (chunks, rest) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &z) in lanes.iter_mut().zip(chunk) {
            *lane = if z > *lane { z } else { *lane };
            finite &= z.is_finite();
        }
    }
    finite &= rest.iter().all(|z| z.is_finite());
    finite.then(|| lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max))
}

/// Logits of which the highest is noted: where it stands is looked for in one such block.
const BLOCK: usize = 2048;
/// Logits that are compared at once.
const LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn best(logits: &[f32]) -> (u32, u32) {
        let Best { id, logit } = Best::of(logits);
        (id, logit.to_bits())
    }

    #[test]
    fn the_best_is_the_first_of_the_highest() {
        let mut logits: Vec<f32> = (0..5000u32).map(|i| (i * 7919 % 997) as f32 - 2000.0).collect();
        for at in [4999, 0, 500, 15, 16, 2047, 2048, 4096] {
            let before = std::mem::replace(&mut logits[at], -1.0);
            assert_eq!(Best::of(&logits), Best { id: at as u32, logit: -1.0 });
            logits[at] = before;
        }
        (logits[70], logits[4900]) = (f32::MAX, f32::MAX);
        assert_eq!(Best::of(&logits).id, 70);
        assert_eq!(best(&[-1.0, -0.0, 0.0]), (1, (-0.0f32).to_bits()), "zeros are equal, and stay what they are");
        assert_eq!(best(&[f32::MIN; 3]), (0, f32::MIN.to_bits()));
    }

    #[test]
    fn what_is_not_finite_is_found_first() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 40, 2100, 4999] {
                let mut logits = [1.0; 5000];
                (logits[4999], logits[at]) = (f32::NAN, wrong);
                assert_eq!(best(&logits), (at as u32, logits[at].to_bits()));
            }
        }
        assert!(Best::of(&[]).logit.is_nan());
    }
}
