//! What a model takes of a card's memory, counted without a card.

use ds4_gguf::{DType, Dims, Gguf};
use ds4_model::{
    Class, KvLayout, Limits, MemoryPlan, Numerics, Result, Shape, TensorSpec, Workspace, draft_specs, tensor_specs,
};

use crate::scratch::Scratch;
use crate::upload::STAGING;
use crate::weight::{TILE_ROWS, tile_bytes};

/// Kernels, graphs, tables, and what the driver keeps for them.
const RESERVE: u64 = 512 << 20;
/// The driver gives large allocations whole pages of this size.
const PAGE: u64 = 2 << 20;

/// Memory of a card that a model on [`crate::Cuda`] would need; weights as they lie there.
///
/// # Errors
/// A file that describes no model of this family.
pub fn plan(file: &Gguf, draft: Option<&Gguf>, limits: Limits) -> Result<MemoryPlan> {
    let shape = Shape::from_gguf(file)?;
    let with_draft = draft.is_some();
    let mut scratch = 0;
    Scratch::allocate(&shape, limits, with_draft, &mut |bytes| {
        scratch += paged(bytes as u64);
        Ok(())
    })?;
    let main = bytes(file, &tensor_specs(&shape));
    let drafted = draft.map_or(0, |draft| bytes(draft, &draft_specs(&shape)));
    Ok(MemoryPlan {
        weights: main + drafted,
        kv: KvLayout::new(&shape, limits, Numerics::Stored, with_draft).bytes(),
        scratch: scratch + Workspace::<()>::bytes(&shape, limits, with_draft) + STAGING as u64 + RESERVE,
        piece: 0,
    })
}

/// Weights of a file; what is missing in it is for loading to complain about.
fn bytes(file: &Gguf, specs: &[TensorSpec]) -> u64 {
    let of = |spec: &TensorSpec| {
        let tensor = file.tensor(&spec.name)?;
        Some(paged(resident(spec.class, tensor.dtype, tensor.dims, tensor.data.len())))
    };
    specs.iter().filter_map(of).sum()
}

fn paged(bytes: u64) -> u64 {
    if bytes < PAGE / 2 { bytes.next_multiple_of(512) } else { bytes.next_multiple_of(PAGE) }
}

/// Bytes of a tensor on the card: the layouts that `upload.rs` chooses.
fn resident(class: Class, dtype: DType, dims: Dims, in_file: usize) -> u64 {
    let (k, rows) = (dims[0] as usize, dims.elements().unwrap_or(0) as usize / (dims[0] as usize).max(1));
    let values = 4 * k * rows;
    let bytes = match (class, dtype) {
        (Class::HashTable | Class::Embedding, _) | (Class::HcFn, DType::F16) => in_file,
        (
            Class::HcFn
            | Class::Norm
            | Class::HcScale
            | Class::HcBase
            | Class::Sinks
            | Class::RouterBias
            | Class::CompressorApe,
            _,
        ) => values,
        (Class::Router, DType::F32) => {
            tile_bytes(DType::F16, 2 * rows.next_multiple_of(TILE_ROWS), k).unwrap_or(values)
        }
        _ => tile_bytes(dtype, rows, k).unwrap_or(in_file),
    };
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(of: &[u64]) -> Dims {
        Dims::new(of).expect("dimensions")
    }

    #[test]
    fn weights_are_counted_as_they_lie_on_the_card() {
        let experts = dims(&[4096, 2048, 256]);
        let tiles = 4096 / 256 * 2048 / 16 * 256;
        assert_eq!(resident(Class::ExpertGateUp, DType::Iq2Xxs, experts, 1), 1120 * tiles);
        assert_eq!(resident(Class::AttnProj, DType::Q8_0, dims(&[128, 40]), 1), 2 * 3 * 1088);
        assert_eq!(resident(Class::Router, DType::F32, dims(&[128, 24]), 1), 2 * 4 * 2048);
        assert_eq!(resident(Class::Router, DType::F16, dims(&[128, 24]), 1), 2 * 2 * 2048);
        assert_eq!(resident(Class::Norm, DType::F16, dims(&[128]), 256), 512);
        assert_eq!(resident(Class::Embedding, DType::F16, dims(&[128, 10]), 2560), 2560);
    }

    #[test]
    fn a_longer_context_takes_more_cache_and_no_more_weights() {
        let recipe = ds4_synth::preset("tiny").expect("a preset");
        let file = Gguf::from_bytes("tiny", ds4_synth::build(&recipe).expect("a model").into()).expect("a file");
        let limits = |context| Limits { context, ..Limits::default() };
        let (short, long) = (plan(&file, None, limits(1024)), plan(&file, None, limits(65_536)));
        let (short, long) = (short.expect("a plan"), long.expect("a plan"));
        assert_eq!(short.weights, long.weights);
        assert!(short.weights > 0 && short.kv < long.kv && short.scratch <= long.scratch, "{short:?} {long:?}");
    }
}
