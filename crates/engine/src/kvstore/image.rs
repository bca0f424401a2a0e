//! The model's state in the two shapes it has: one stream, as `Model::save` writes and `Model::load` reads it, and a tail
//! with segments of rows. Moves bytes; knows neither files nor keys.

use std::io::{self, Read};
use std::ops::Range;

use ds4_model::Part;

use super::directory::Pin;
use super::key::Key;

/// A checkpoint read back.
pub(crate) struct Image {
    /// Its key.
    pub(crate) key: Key,
    /// Tokens before its end.
    pub(crate) tokens: u32,
    /// After the last token; empty if they were not known.
    pub(crate) logits: Vec<f32>,
    /// Window and frontiers.
    pub(crate) tail: Vec<u8>,
    /// Rows of consecutive ranges of tokens from the first on.
    pub(crate) segments: Vec<Rows>,
    /// Keeps the files while the state is not in a slot yet.
    pub(crate) _pin: Option<Pin>,
}

/// Rows of every table for a range of tokens, table after table.
pub(crate) struct Rows {
    pub(crate) range: Range<u32>,
    pub(crate) bytes: Vec<u8>,
}

impl Image {
    /// The state as one stream of a model whose states have these parts, or nothing if it is of another size.
    pub(crate) fn stream<'a>(&'a self, parts: &[Part]) -> Option<Stream<'a>> {
        let mut tail = &self.tail[..];
        let mut rows: Vec<&[u8]> = self.segments.iter().map(|rows| &rows.bytes[..]).collect();
        let mut runs = Vec::new();
        for part in parts {
            if let Part::Tail(bytes) = *part {
                runs.push(tail.split_off(..bytes)?);
                continue;
            }
            for (segment, rest) in self.segments.iter().zip(&mut rows) {
                runs.push(rest.split_off(..part.bytes(&segment.range))?);
            }
        }
        let whole = tail.is_empty() && rows.iter().all(|rest| rest.is_empty());
        runs.reverse();
        whole.then_some(Stream { runs })
    }
}

/// Runs of bytes one after the other, the next one last.
pub(crate) struct Stream<'a> {
    runs: Vec<&'a [u8]>,
}

impl Read for Stream<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(run) = self.runs.last_mut() {
            if run.is_empty() {
                self.runs.pop();
            } else {
                return run.read(out);
            }
        }
        Ok(0)
    }
}

/// A stream that `Model::save` wrote for `range`, taken apart: the tail, and the rows of each of `ranges`, which follow one
/// another to the end of `range`. Nothing if the sizes do not fit.
pub(crate) fn split(
    mut state: &[u8],
    parts: &[Part],
    range: &Range<u32>,
    ranges: &[Range<u32>],
) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let mut tail = Vec::new();
    let mut rows = vec![Vec::new(); ranges.len()];
    for part in parts {
        let run = state.split_off(..part.bytes(range))?;
        let Part::Rows { ratio, row_bytes } = *part else {
            tail.extend_from_slice(run);
            continue;
        };
        let at = |pos: u32| (pos / ratio - range.start / ratio) as usize * row_bytes;
        for (rows, range) in rows.iter_mut().zip(ranges) {
            rows.extend_from_slice(&run[at(range.start)..at(range.end)]);
        }
    }
    state.is_empty().then_some((tail, rows))
}

/// Ranges of segments of `step` tokens from `from`, a multiple of it, to `to`. The last one may be shorter.
pub(crate) fn ranges(from: u32, to: u32, step: u32) -> impl Iterator<Item = Range<u32>> {
    (from..to).step_by(step as usize).map(move |start| start..start.saturating_add(step).min(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [Part; 5] = [
        Part::Tail(3),
        Part::Rows { ratio: 4, row_bytes: 2 },
        Part::Tail(1),
        Part::Tail(0),
        Part::Rows { ratio: 16, row_bytes: 5 },
    ];

    fn state(range: &Range<u32>) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, part) in PARTS.iter().enumerate() {
            match *part {
                Part::Tail(bytes) => out.extend(vec![i as u8; bytes]),
                Part::Rows { ratio, row_bytes } => (range.start / ratio..range.end / ratio)
                    .for_each(|row| out.extend((0..row_bytes).map(|byte| (row * 7) as u8 ^ byte as u8))),
            }
        }
        out
    }

    #[test]
    fn a_state_taken_apart_anywhere_is_put_together_again() {
        for (n, step) in [(1, 8), (8, 8), (50, 8), (64, 7), (64, 64), (100, 33)] {
            let all: Vec<_> = ranges(0, n, step).collect();
            for first in 0..all.len() {
                let range = all[first].start..n;
                let (tail, rows) = split(&state(&range), &PARTS, &range, &all[first..]).unwrap();
                let (_, before) = split(&state(&(0..n)), &PARTS, &(0..n), &all).unwrap();
                let whole = before.into_iter().take(first).chain(rows).zip(&all);
                let segments = whole.map(|(bytes, range)| Rows { range: range.clone(), bytes }).collect();
                let mut image = Image { key: Key::NONE, tokens: n, logits: Vec::new(), tail, segments, _pin: None };
                let mut out = Vec::new();
                image.stream(&PARTS).unwrap().read_to_end(&mut out).unwrap();
                assert_eq!(out, state(&(0..n)));
                image.tail.push(0);
                assert!(image.stream(&PARTS).is_none());
            }
        }
    }
}
