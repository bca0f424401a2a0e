//! Source formats to float32 (gguf.md section 9). Owns the pairing of weights with their scales, and the check that every
//! number is one.

use ds4_gguf::tables::MXFP4_VALUES;
use half::{bf16, f16};

use super::{Checkpoint, Entry, SourceType};
use crate::error::{Error, Result};

/// Rows and columns that share a scale of F8_E4M3.
const TILE: u64 = 128;
/// Consecutive inputs that share a scale of FP4.
const GROUP: u64 = 32;

/// A matrix (or vector: one row) of numbers in a checkpoint, checked to be complete.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    weight: Entry,
    scale: Option<Entry>,
    kind: Kind,
    pub(crate) rows: u64,
    pub(crate) columns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    Bf16,
    F8,
    Fp4,
}

/// Rows as packed FP4 with their scales.
#[derive(Default)]
pub(crate) struct Packed {
    pub(crate) codes: Vec<u8>,
    pub(crate) scales: Vec<u8>,
}

impl Matrix {
    /// The tensor `name` as `rows` of `columns`; `shape` is what the checkpoint should say of it, slowest first.
    pub(crate) fn find(from: &Checkpoint, name: &str, shape: &[u64]) -> Result<Self> {
        let weight = from.find(name).ok_or_else(|| missing(from, name, format!("{shape:?}")))?;
        let columns = *shape.last().expect("every tensor has a dimension");
        let rows = shape[..shape.len() - 1].iter().product();
        let kind = kind(from, &weight)?;
        let stored: Vec<u64> = match (kind, weight.dtype) {
            (Kind::Fp4, SourceType::I8 | SourceType::U8) => vec![rows, columns / 2],
            _ => shape.to_vec(),
        };
        let scale = match kind {
            Kind::F8 => Some([rows.div_ceil(TILE), columns.div_ceil(TILE)]),
            Kind::Fp4 => Some([rows, columns / GROUP]),
            _ => None,
        };
        if weight.shape != stored || (kind == Kind::Fp4 && !columns.is_multiple_of(GROUP)) {
            let (found, expected) = (format!("{:?} {}", weight.shape, weight.dtype), format!("{stored:?}"));
            return Err(Error::invalid(from.file_of(&weight), format!("tensor {name}"), found, expected));
        }
        let scale = scale.map(|shape| find_scale(from, name, shape)).transpose()?;
        Ok(Self { weight, scale, kind, rows, columns })
    }

    /// Bytes of a row in the checkpoint, without its scales.
    pub(crate) fn row_bytes(&self) -> u64 {
        match self.kind {
            Kind::F32 => 4 * self.columns,
            Kind::F16 | Kind::Bf16 => 2 * self.columns,
            Kind::F8 => self.columns,
            Kind::Fp4 => self.columns / 2,
        }
    }

    /// Stored as FP4, so that MXFP4 holds it without loss.
    pub(crate) fn is_fp4(&self) -> bool {
        self.kind == Kind::Fp4
    }

    pub(crate) fn weight(&self) -> &Entry {
        &self.weight
    }

    /// Decodes `n` rows from `first` into `out`; `raw` is working space. Errors: a number that is none.
    pub(crate) fn read(
        &self,
        from: &Checkpoint,
        first: u64,
        n: u64,
        raw: &mut Vec<u8>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let columns = self.columns as usize;
        out.clear();
        out.resize(n as usize * columns, 0.0);
        if self.kind == Kind::Fp4 {
            let mut packed = Packed::default();
            self.read_packed(from, first, n, &mut packed)?;
            for (out, (codes, &scale)) in
                out.as_chunks_mut::<32>().0.iter_mut().zip(packed.codes.as_chunks::<16>().0.iter().zip(&packed.scales))
            {
                fp4(codes, scale, out);
            }
            return self.check(from, first, out);
        }
        raw.clear();
        raw.resize((n * self.row_bytes()) as usize, 0);
        from.read(&self.weight, first * self.row_bytes(), raw)?;
        match self.kind {
            Kind::F32 => each(raw, out, |b| f32::from_le_bytes(*b)),
            Kind::F16 => each(raw, out, |b| f16::from_le_bytes(*b).to_f32()),
            Kind::Bf16 => each(raw, out, |b| bf16::from_le_bytes(*b).to_f32()),
            Kind::F8 => self.tiles(from, first, raw, out)?,
            Kind::Fp4 => unreachable!("read above"),
        }
        self.check(from, first, out)
    }

    /// Reads `n` rows of FP4 from `first` as they are. Errors: a scale that is no number.
    pub(crate) fn read_packed(&self, from: &Checkpoint, first: u64, n: u64, out: &mut Packed) -> Result<()> {
        let scale = self.scale.as_ref().expect("FP4 has scales");
        let groups = self.columns / GROUP;
        out.codes.resize((n * self.row_bytes()) as usize, 0);
        out.scales.resize((n * groups) as usize, 0);
        from.read(&self.weight, first * self.row_bytes(), &mut out.codes)?;
        from.read(scale, first * groups, &mut out.scales)?;
        check_scales(from, scale, first * groups, &out.scales)
    }

    /// Values of E4M3 times the scale of their tile.
    fn tiles(&self, from: &Checkpoint, first: u64, raw: &[u8], out: &mut [f32]) -> Result<()> {
        let scale = self.scale.as_ref().expect("E4M3 has scales");
        let (columns, per_row) = (self.columns as usize, self.columns.div_ceil(TILE));
        let n = (out.len() / columns) as u64;
        let (top, bottom) = (first / TILE, (first + n).div_ceil(TILE));
        let mut scales = vec![0; ((bottom - top) * per_row) as usize];
        from.read(scale, top * per_row, &mut scales)?;
        check_scales(from, scale, top * per_row, &scales)?;
        let rows = raw.chunks_exact(columns).zip(out.chunks_exact_mut(columns));
        for (row, (raw, out)) in (first..).zip(rows) {
            let scales = &scales[((row / TILE - top) * per_row) as usize..][..per_row as usize];
            let tiles = raw.chunks(TILE as usize).zip(out.chunks_mut(TILE as usize));
            for ((raw, out), &scale) in tiles.zip(scales) {
                let scale = e8m0(scale);
                for (y, &b) in out.iter_mut().zip(raw) {
                    *y = e4m3(b) * scale;
                }
            }
        }
        Ok(())
    }

    fn check(&self, from: &Checkpoint, first: u64, values: &[f32]) -> Result<()> {
        match values.iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(i) => Err(Error::BadValue {
                file: from.file_of(&self.weight),
                tensor: self.weight.name.clone(),
                element: first * self.columns + i as u64,
                value: values[i].to_string(),
                expected: "a finite number".to_owned(),
            }),
        }
    }
}

fn kind(from: &Checkpoint, weight: &Entry) -> Result<Kind> {
    Ok(match weight.dtype {
        SourceType::F32 => Kind::F32,
        SourceType::F16 => Kind::F16,
        SourceType::BF16 => Kind::Bf16,
        SourceType::F8_E4M3 => Kind::F8,
        SourceType::F4 | SourceType::I8 | SourceType::U8 => Kind::Fp4,
        SourceType::F8_E8M0 | SourceType::I32 | SourceType::I64 | SourceType::Unknown => {
            let expected = "F32, F16, BF16, F8_E4M3 or packed FP4 (I8, U8, F4)";
            return Err(Error::invalid(
                from.file_of(weight),
                format!("tensor {}", weight.name),
                weight.dtype.to_string(),
                expected,
            ));
        }
    })
}

fn find_scale(from: &Checkpoint, name: &str, shape: [u64; 2]) -> Result<Entry> {
    let name = format!("{}.scale", name.strip_suffix(".weight").unwrap_or(name));
    let scale = from.find(&name).ok_or_else(|| missing(from, &name, format!("{shape:?} of F8_E8M0")))?;
    if scale.dtype != SourceType::F8_E8M0 || scale.shape != shape {
        let found = format!("{:?} {}", scale.shape, scale.dtype);
        let expected = format!("{shape:?} F8_E8M0");
        return Err(Error::invalid(from.file_of(&scale), format!("tensor {name}"), found, expected));
    }
    Ok(scale)
}

fn check_scales(from: &Checkpoint, scale: &Entry, first: u64, bytes: &[u8]) -> Result<()> {
    match bytes.iter().position(|&e| e == 255) {
        None => Ok(()),
        Some(i) => Err(Error::BadValue {
            file: from.file_of(scale),
            tensor: scale.name.clone(),
            element: first + i as u64,
            value: "NaN".to_owned(),
            expected: "a power of two".to_owned(),
        }),
    }
}

pub(crate) fn missing(from: &Checkpoint, name: &str, expected: String) -> Error {
    Error::Missing { folder: crate::error::shown(from.folder()), tensor: name.to_owned(), expected }
}

fn each<const N: usize>(raw: &[u8], out: &mut [f32], read: impl Fn(&[u8; N]) -> f32) {
    for (y, b) in out.iter_mut().zip(raw.as_chunks().0) {
        *y = read(b);
    }
}

/// Bytes of 16 pairs, the even element in the low nibble.
fn fp4(codes: &[u8; 16], scale: u8, out: &mut [f32; 32]) {
    let scale = e8m0(scale);
    for (pair, &b) in out.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
        *pair = [b & 15, b >> 4].map(|code| MXFP4_VALUES[usize::from(code)] * scale);
    }
}

/// `2^(e - 127)`.
fn e8m0(e: u8) -> f32 {
    match e {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(e) << 23),
    }
}

/// Sign, four bits of exponent with bias 7, three of mantissa; no infinities, one NaN of each sign.
fn e4m3(b: u8) -> f32 {
    let (exponent, mantissa) = (b >> 3 & 15, f32::from(b & 7));
    let magnitude = match exponent {
        _ if b & 127 == 127 => f32::NAN,
        0 => mantissa * f32::from_bits((127 - 9) << 23),
        _ => (8.0 + mantissa) * f32::from_bits((127 - 10 + u32::from(exponent)) << 23),
    };
    if b & 128 != 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_has_the_published_values() {
        for (b, value) in
            [(0x00, 0.0), (0x01, 0.001_953_125), (0x08, 0.015_625), (0x38, 1.0), (0x7e, 448.0), (0xc0, -2.0)]
        {
            assert_eq!(e4m3(b), value, "{b:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        assert_eq!((0..=255).filter(|&b| e4m3(b).is_nan()).count(), 2);
    }

    #[test]
    fn scales_are_powers_of_two() {
        assert_eq!([e8m0(0), e8m0(1), e8m0(127), e8m0(254)], [-127.0, -126.0, 0.0, 127.0].map(f32::exp2));
    }

    #[test]
    fn the_low_nibble_is_the_even_element() {
        let mut out = [0.0; 32];
        fp4(&[0x72; 16], 128, &mut out);
        assert_eq!(out[..4], [2.0, 12.0, 2.0, 12.0]);
    }
}
