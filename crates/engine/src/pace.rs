//! How many prompt rows a step may take along while other sequences decode. Their next token waits for the whole step, and
//! it shall wait at most three times as long as without company (server.md 11.2). What a row costs differs between devices,
//! models and lengths, so it is measured: nothing here changes results, only when they come.

use std::time::Duration;

/// A step beside prompts may take so many times as long as one without.
const STRETCH: f64 = 3.0;
/// Rows below which nothing would get on.
const LEAST: u32 = 16;
/// Weight of a new measurement.
const NEW: f64 = 0.25;

/// What steps took so far.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Seconds of a step that only decodes, by its rows: entry `i` is for at most `2^i` of them.
    decoding: [Option<f64>; CLASSES],
    /// Seconds that one prompt row adds.
    row: Option<f64>,
}

const CLASSES: usize = 16;

impl Pace {
    /// A step of `decode` decode rows and `others` took `time`.
    pub(crate) fn took(&mut self, decode: u32, others: u32, time: Duration) {
        let time = time.as_secs_f64();
        let alone = &mut self.decoding[class(decode)];
        match (decode, others) {
            (0, 0) => {}
            (_, 0) => learn(alone, time),
            (0, _) => learn(&mut self.row, time / f64::from(others)),
            _ => match (*alone, self.row) {
                (Some(alone), _) => learn(&mut self.row, (time - alone).max(0.0) / f64::from(others)),
                // Nothing is known of steps without company yet: what the prompt does not explain is theirs.
                (None, Some(row)) => *alone = Some((time - row * f64::from(others)).max(time / STRETCH)),
                (None, None) => {}
            },
        }
    }

    /// Prompt rows for a step with `decode` decode rows, at most `most`.
    pub(crate) fn quantum(&self, decode: u32, most: u32) -> u32 {
        // As long as nothing is known of so many rows, fewer of them tell the least that they take.
        let known = self.decoding[..=class(decode)].iter().rev().find_map(|&time| time);
        let rows = match (known, self.row) {
            (Some(alone), Some(row)) if row > 0.0 => ((STRETCH - 1.0) * alone / row) as u32,
            (Some(_), Some(_)) => most,
            _ => LEAST,
        };
        rows.clamp(LEAST.min(most), most)
    }
}

fn class(rows: u32) -> usize {
    (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(CLASSES - 1)
}

fn learn(known: &mut Option<f64>, seen: f64) {
    *known = Some(known.map_or(seen, |known| known + NEW * (seen - known)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of a device on which `decode` rows and `others` take a millisecond, and 0.1 and 0.3 more a row.
    fn step(pace: &mut Pace, decode: u32, others: u32) -> f64 {
        let time = 1.0 + 0.1 * f64::from(decode) + 0.3 * f64::from(others);
        pace.took(decode, others, Duration::from_secs_f64(time / 1e3));
        time
    }

    #[test]
    fn steps_beside_prompts_take_three_times_as_long_as_without() {
        for decode in [8, 64] {
            let mut pace = Pace::default();
            step(&mut pace, 0, 500);
            for _ in 0..20 {
                step(&mut pace, decode, 0);
            }
            let alone = 1.0 + 0.1 * f64::from(decode);
            let mut last = 0.0;
            for _ in 0..20 {
                let others = pace.quantum(decode, 512);
                last = step(&mut pace, decode, others) / alone;
            }
            assert!(last < STRETCH * 1.05 || pace.quantum(decode, 512) == LEAST, "{last} times");
            assert!(last > STRETCH * 0.9, "{last} times");
        }
    }

    #[test]
    fn without_measurements_and_on_a_slow_device_a_prompt_still_gets_on() {
        let mut pace = Pace::default();
        assert_eq!(pace.quantum(4, 512), LEAST);
        pace.took(4, 0, Duration::from_millis(1));
        pace.took(0, 1, Duration::from_secs(1));
        assert_eq!(pace.quantum(4, 512), LEAST);
        assert_eq!(pace.quantum(4, 3), 3, "never more than was allowed");
    }

    #[test]
    fn decoding_that_is_never_alone_is_judged_by_what_prompts_do_not_explain() {
        let mut pace = Pace::default();
        step(&mut pace, 0, 500);
        for _ in 0..50 {
            let others = pace.quantum(32, 512);
            step(&mut pace, 32, others);
        }
        assert!(pace.quantum(32, 512) > LEAST, "{}", pace.quantum(32, 512));
    }
}
