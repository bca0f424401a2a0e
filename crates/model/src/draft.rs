//! The tensors of a draft-block support file (gguf.md section 5). Owns their names, dims and roles; runs nothing.

use ds4_gguf::Dims;

use crate::{Class, HC, Shape, TensorSpec, tensor_specs};

/// Every tensor of the support file of a main model of this shape, in file order: a layer without compression, routed by
/// score, and what joins it to the main model.
pub fn draft_specs(shape: &Shape) -> Vec<TensorSpec> {
    let n = shape.n_embd as u64;
    let own = [
        ("e_proj", Dims::from([n, n]), Class::AttnProj),
        ("h_proj", Dims::from([n, n]), Class::AttnProj),
        ("enorm", Dims::from([n]), Class::Norm),
        ("hnorm", Dims::from([n]), Class::Norm),
        ("norm", Dims::from([n]), Class::Norm),
        ("hc_head_fn", Dims::from([HC as u64 * n, HC as u64]), Class::HcFn),
        ("hc_head_scale", Dims::from([1]), Class::HcScale),
        ("hc_head_base", Dims::from([HC as u64]), Class::HcBase),
    ];
    let own = own.map(|(name, dims, class)| TensorSpec { name: format!("mtp.0.{name}.weight"), dims, class });
    let block = Shape { n_layer: 1, ratios: vec![0], n_hash_layer: 0, ..shape.clone() };
    let layer = tensor_specs(&block).into_iter().filter_map(|spec| {
        let name = format!("mtp.0.{}", spec.name.strip_prefix("blk.0.")?);
        Some(TensorSpec { name, ..spec })
    });
    own.into_iter().chain(layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_support_file_has_the_published_tensors() {
        let specs = draft_specs(&Shape::flash());
        assert_eq!(specs.len(), 32);
        let dims = |name: &str| specs.iter().find(|spec| spec.name == name).map(|spec| spec.dims);
        assert_eq!(dims("mtp.0.hc_head_fn.weight"), Some(Dims::from([16_384, 4])));
        assert_eq!(dims("mtp.0.exp_probs_b.bias"), Some(Dims::from([256])));
        assert_eq!(dims("mtp.0.ffn_gate_tid2eid.weight"), None);
    }
}
