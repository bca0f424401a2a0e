//! One piece of a plan to the bytes of its file. Owns the working buffers of a thread, and the check that a target can hold
//! each value.

use ds4_gguf::DType;

use crate::{
    blocks,
    error::{Error, Result},
    plan::{Piece, Plan, Source},
    source::{Entry, Matrix, Packed, SourceType},
};

/// Elements decoded at a time: small enough for many threads, large enough for a disk.
const CHUNK: u64 = 1 << 20;

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Converter {
    raw: Vec<u8>,
    packed: Packed,
    values: Vec<f32>,
    out: Vec<u8>,
}

/// Takes finished bytes and their place, counted from the start of the tensor; with the values they stand for, where they
/// were decoded.
pub(crate) type Sink<'a> = dyn FnMut(&[u8], u64, &[f32]) -> Result<()> + 'a;

impl Converter {
    /// Converts a piece, chunk by chunk in row order.
    pub(crate) fn convert(&mut self, plan: &Plan, piece: &Piece, sink: &mut Sink<'_>) -> Result<()> {
        let planned = &plan.tensors[piece.tensor];
        match &planned.source {
            Source::Table(table) => self.table(plan, table, piece, sink),
            Source::Matrices(matrices) => {
                let matrix = &matrices[piece.matrix];
                let row_bytes =
                    planned.dtype.row_bytes(matrix.columns as usize).expect("the recipe checked whole blocks");
                let target = Target {
                    dtype: planned.dtype,
                    row_bytes: row_bytes as u64,
                    start: piece.matrix as u64 * matrix.rows * row_bytes as u64,
                };
                if planned.dtype == DType::Mxfp4 && matrix.is_fp4() {
                    return self.rearrange(plan, matrix, piece, &target, sink);
                }
                let mut importance = plan.importance(piece.tensor, piece.matrix)?;
                if plan.is_synthetic(piece.tensor, piece.matrix)? {
                    importance = Some(self.squares(plan, matrix)?);
                }
                self.encode(plan, matrix, piece, &target, importance.as_deref(), sink)
            }
        }
    }

    fn encode(
        &mut self,
        plan: &Plan,
        matrix: &Matrix,
        piece: &Piece,
        target: &Target,
        importance: Option<&[f32]>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        for (first, n) in chunks(piece.first, piece.rows, matrix.columns) {
            matrix.read(&plan.checkpoint, first, n, &mut self.raw, &mut self.values)?;
            check_range(plan, matrix, target.dtype, first, &self.values)?;
            self.out.resize((n * target.row_bytes) as usize, 0);
            let rows = self.values.chunks_exact(matrix.columns as usize);
            for (row, out) in rows.zip(self.out.chunks_exact_mut(target.row_bytes as usize)) {
                blocks::encode_row(target.dtype, row, importance, out);
            }
            sink(&self.out, target.start + first * target.row_bytes, &self.values)?;
        }
        Ok(())
    }

    /// FP4 to MXFP4 without decoding.
    fn rearrange(
        &mut self,
        plan: &Plan,
        matrix: &Matrix,
        piece: &Piece,
        target: &Target,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        for (first, n) in chunks(piece.first, piece.rows, matrix.columns) {
            matrix.read_packed(&plan.checkpoint, first, n, &mut self.packed)?;
            self.out.resize((n * target.row_bytes) as usize, 0);
            blocks::rearrange_fp4(&self.packed.codes, &self.packed.scales, &mut self.out);
            sink(&self.out, target.start + first * target.row_bytes, &[])?;
        }
        Ok(())
    }

    /// The synthetic importance: the sum of squares of each column.
    fn squares(&mut self, plan: &Plan, matrix: &Matrix) -> Result<Vec<f32>> {
        let mut sums = vec![0.0; matrix.columns as usize];
        for (first, n) in chunks(0, matrix.rows, matrix.columns) {
            matrix.read(&plan.checkpoint, first, n, &mut self.raw, &mut self.values)?;
            for row in self.values.chunks_exact(matrix.columns as usize) {
                blocks::add_squares(row, &mut sums);
            }
        }
        match sums.iter().position(|v| !v.is_finite()) {
            None => Ok(sums),
            Some(i) => Err(Error::BadValue {
                file: plan.checkpoint.file_of(matrix.weight()),
                tensor: matrix.weight().name.clone(),
                element: i as u64,
                value: "in a column whose squares overflow".to_owned(),
                expected: "smaller weights".to_owned(),
            }),
        }
    }

    fn table(&mut self, plan: &Plan, table: &Entry, piece: &Piece, sink: &mut Sink<'_>) -> Result<()> {
        let columns = table.shape[1];
        let width = if table.dtype == SourceType::I64 { 8 } else { 4 };
        for (first, n) in chunks(piece.first, piece.rows, columns) {
            self.raw.resize((n * columns * width) as usize, 0);
            plan.checkpoint.read(table, first * columns * width, &mut self.raw)?;
            self.out.clear();
            for (i, id) in ids(table.dtype, &self.raw).enumerate() {
                let fits = usize::try_from(id).is_ok_and(|id| id < plan.n_expert());
                if !fits {
                    return Err(Error::BadValue {
                        file: plan.checkpoint.file_of(table),
                        tensor: table.name.clone(),
                        element: first * columns + i as u64,
                        value: id.to_string(),
                        expected: format!("an expert, 0 to {}", plan.n_expert() - 1),
                    });
                }
                self.out.extend((id as i32).to_le_bytes());
            }
            sink(&self.out, first * columns * 4, &[])?;
        }
        Ok(())
    }
}

/// Where and how a matrix goes.
struct Target {
    dtype: DType,
    row_bytes: u64,
    /// From the start of the tensor.
    start: u64,
}

fn ids(dtype: SourceType, raw: &[u8]) -> Box<dyn Iterator<Item = i64> + '_> {
    match dtype {
        SourceType::I64 => Box::new(raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b))),
        _ => Box::new(raw.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b)))),
    }
}

/// Runs of rows of about [`CHUNK`] elements.
fn chunks(first: u64, rows: u64, columns: u64) -> impl Iterator<Item = (u64, u64)> {
    let most = (CHUNK / columns).max(1);
    (0..rows).step_by(most as usize).map(move |at| (first + at, most.min(rows - at)))
}

/// F16, and the f16 scales of blocks, would become infinite.
fn check_range(plan: &Plan, matrix: &Matrix, dtype: DType, first: u64, values: &[f32]) -> Result<()> {
    if matches!(dtype, DType::F32 | DType::Bf16) {
        return Ok(());
    }
    match values.iter().position(|x| x.abs() > blocks::F16_MAX) {
        None => Ok(()),
        Some(i) => Err(Error::BadValue {
            file: plan.checkpoint.file_of(matrix.weight()),
            tensor: matrix.weight().name.clone(),
            element: first * matrix.columns + i as u64,
            value: values[i].to_string(),
            expected: format!("at most {} for {dtype}", blocks::F16_MAX),
        }),
    }
}
