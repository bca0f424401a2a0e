//! What a model takes of a device's memory, counted without a device.

use ds4_gguf::Gguf;
use ds4_model::{
    Class, KvLayout, Limits, MemoryPlan, Numerics, Result, Shape, TensorSpec, Workspace, draft_specs, tensor_specs,
};

use crate::scratch::Scratch;
use crate::upload::{SHARED, format_of};

/// Pipelines, tables, what the driver keeps for them, and pieces of weights under way.
const RESERVE: u64 = 512 << 20;

/// Memory that a model on [`crate::Wgpu`] would need; weights as they lie there.
///
/// # Errors
/// A file that describes no model of this family.
pub fn plan(file: &Gguf, draft: Option<&Gguf>, limits: Limits) -> Result<MemoryPlan> {
    let shape = Shape::from_gguf(file)?;
    let with_draft = draft.is_some();
    let (mut total, mut piece) = (0, 0);
    let mut count = |bytes: usize| {
        total += bytes as u64;
        piece = piece.max(bytes as u64);
        Ok(())
    };
    let kv = KvLayout::new(&shape, limits, Numerics::Stored, with_draft);
    kv.allocate(&mut count)?;
    Workspace::allocate(&shape, limits, with_draft, &mut count)?;
    Scratch::allocate(&shape, limits, with_draft, u64::MAX, &mut count)?;
    let main = bytes(file, &tensor_specs(&shape));
    let drafted = draft.map_or(0, |draft| bytes(draft, &draft_specs(&shape)));
    // Tensors share buffers: the last is full in part.
    let slack = SHARED.min(main);
    Ok(MemoryPlan { weights: main + drafted, kv: kv.bytes(), scratch: total - kv.bytes() + RESERVE + slack, piece })
}

/// Weights of a file; what is missing in it is for loading to complain about.
fn bytes(file: &Gguf, specs: &[TensorSpec]) -> u64 {
    let of = |spec: &TensorSpec| {
        let tensor = file.tensor(&spec.name)?;
        let format = format_of(spec.class, tensor.dtype);
        let (k, m) = (tensor.n_in(), tensor.n_rows());
        let in_blocks = !matches!(spec.class, Class::HashTable) && k.is_multiple_of(format.inputs());
        let (codes, scales) = if in_blocks { format.plane_words(k, m) } else { (k * m, 0) };
        Some(4 * (codes + scales) as u64)
    };
    specs.iter().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_take_what_they_take_in_the_file_and_a_longer_context_only_more_cache() {
        let recipe = ds4_synth::preset("tiny").expect("a preset");
        let file = Gguf::from_bytes("tiny", ds4_synth::build(&recipe).expect("a model").into()).expect("a file");
        let limits = |context| Limits { context, ..Limits::default() };
        let (short, long) = (plan(&file, None, limits(1024)), plan(&file, None, limits(65_536)));
        let (short, long) = (short.expect("a plan"), long.expect("a plan"));
        assert!(short.weights == long.weights && short.kv < long.kv, "{short:?} {long:?}");
        let slots = plan(&file, None, Limits { slots: 64, ..limits(65_536) }).expect("a plan");
        let rows = 64 * (65_536 / 4 + 1) * Numerics::Stored.row_bytes(&recipe.shape) as u64;
        assert!(slots.piece == rows && long.piece < rows, "{slots:?} {long:?}");
        let in_file: u64 = file.tensors().iter().map(|tensor| tensor.bytes).sum();
        assert!(short.weights.abs_diff(in_file) < in_file / 16, "{} and {in_file}", short.weights);
    }
}
