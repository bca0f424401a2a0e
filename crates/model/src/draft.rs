//! The draft block's own file (gguf.md section 5): one layer without compression, and what joins it to the main model, whose
//! embedding table and vocabulary matrix it uses. Owns names, dims and checks; the block's run is in `transformer.rs`.

use ds4_gguf::Gguf;

use crate::weights::{Binder, Role, bind_layer, check_experts, find};
use crate::{Class, Error, HC, HeadWeights, LayerWeights, Result, Shape, TensorSpec};

/// All weights of a draft block.
#[derive(Debug)]
pub struct DraftWeights<W> {
    /// What joins a token and a state.
    pub embed: DraftEmbedWeights<W>,
    /// A layer of ratio 0, routed by score.
    pub layer: LayerWeights<W>,
    /// The block's own way from streams to the input of the main model's `output`.
    pub head: HeadWeights<W>,
}

/// Weights of stage `draft_embed`.
#[derive(Debug)]
pub struct DraftEmbedWeights<W> {
    /// `e_proj` `[n_embd, n_embd]`, of the token
    pub e_proj: W,
    /// `h_proj` `[n_embd, n_embd]`, of each stream of the state
    pub h_proj: W,
    /// `enorm` `[n_embd]`
    pub enorm: W,
    /// `hnorm` `[n_embd]`
    pub hnorm: W,
}

impl<W> DraftWeights<W> {
    /// Walks the list in file order and asks `take` for each tensor. `s` is the main model's shape.
    pub fn bind(s: &Shape, take: &mut dyn FnMut(TensorSpec) -> Result<W>) -> Result<DraftWeights<W>> {
        let mut t = Binder { prefix: "mtp.0.".to_owned(), take };
        let embed = DraftEmbedWeights {
            e_proj: t.bind("e_proj", [s.n_embd, s.n_embd], Class::AttnProj)?,
            h_proj: t.bind("h_proj", [s.n_embd, s.n_embd], Class::AttnProj)?,
            enorm: t.bind("enorm", [s.n_embd], Class::Norm)?,
            hnorm: t.bind("hnorm", [s.n_embd], Class::Norm)?,
        };
        let head = HeadWeights {
            norm: t.bind("norm", [s.n_embd], Class::Norm)?,
            mix: t.bind("hc_head_fn", [HC * s.n_embd, HC], Class::HcFn)?,
            scale: t.bind("hc_head_scale", [1], Class::HcScale)?,
            base: t.bind("hc_head_base", [HC], Class::HcBase)?,
        };
        // The file names no limit: it is that of the layers the block follows.
        let clamp = *s.swiglu_clamp.last().expect("a shape has at least one layer");
        let layer = bind_layer(s, Role { ratio: 0, clamp, hashed: false }, &mut t)?;
        Ok(DraftWeights { embed, layer, head })
    }
}

/// Every tensor of the draft block's file for a main model of this shape, in file order.
pub fn draft_specs(shape: &Shape) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    DraftWeights::bind(shape, &mut |spec| {
        specs.push(spec);
        Ok(())
    })
    .expect("collecting specs cannot fail");
    specs
}

/// Checks that `file` holds a draft block for a main model of this shape, without reading a weight.
///
/// # Errors
/// The first thing that does not fit: kind of file, number of blocks or experts, a tensor's presence, dims or type.
pub fn validate_draft(file: &Gguf, shape: &Shape) -> Result<()> {
    let meta = file.metadata();
    let wrong = |key: &str, found: String, expected: String| {
        Err(Error::Metadata { file: file.name().to_owned(), key: key.to_owned(), found, expected })
    };
    let architecture = meta.str("general.architecture")?;
    if architecture != ARCHITECTURE {
        return wrong("general.architecture", architecture.to_owned(), ARCHITECTURE.to_owned());
    }
    let counts = [
        ("deepseek4.mtp_layer_count", 1, "1".to_owned()),
        ("deepseek4.expert_count", shape.n_expert, format!("{} as in the main model", shape.n_expert)),
    ];
    for (key, expected, said) in counts {
        if meta.contains(key) && meta.u64(key)? != expected as u64 {
            return wrong(key, meta.u64(key)?.to_string(), said);
        }
    }
    let types = DraftWeights::bind(shape, &mut |spec| find(file, &spec).map(|tensor| (spec.name, tensor.dtype)))?;
    check_experts(file, &types.layer.experts)
}

/// `general.architecture` of a draft block's file.
const ARCHITECTURE: &str = "deepseek4_mtp_support";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flash_has_the_directory_of_the_published_support_file() {
        let specs = draft_specs(&Shape::flash());
        assert_eq!(specs.len(), 32);
        let dims = |name: &str| specs.iter().find(|spec| spec.name == name).map(|spec| spec.dims.to_string());
        assert_eq!(dims("mtp.0.e_proj.weight").as_deref(), Some("[4096, 4096]"));
        assert_eq!(dims("mtp.0.hc_head_fn.weight").as_deref(), Some("[16384, 4]"));
        assert_eq!(dims("mtp.0.exp_probs_b.bias").as_deref(), Some("[256]"));
        assert_eq!(dims("mtp.0.attn_output_a.weight").as_deref(), Some("[4096, 8192]"));
        assert_eq!(dims("mtp.0.ffn_gate_tid2eid.weight"), None);
    }
}
