//! From GGUF names to the checkpoint's (gguf.md sections 4, 5 and 9). Data and one lookup; the GGUF names themselves, with
//! dims and roles, are `ds4-model`'s.

/// What a tensor is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceName {
    /// One tensor.
    One(String),
    /// One matrix per expert: what stands before and after the number.
    PerExpert { before: String, after: &'static str },
}

impl SourceName {
    /// The name of matrix `e`; the one name if there is only one.
    pub(crate) fn matrix(&self, e: usize) -> String {
        match self {
            Self::One(name) => name.clone(),
            Self::PerExpert { before, after } => format!("{before}{e}{after}"),
        }
    }
}

/// The source of a GGUF tensor; `None` for a name that no file of ours has.
pub(crate) fn source_of(gguf: &str) -> Option<SourceName> {
    if let Some((_, source)) = GLOBAL.iter().find(|(name, _)| *name == gguf) {
        return Some(SourceName::One((*source).to_owned()));
    }
    let (prefix, name) = if let Some(rest) = gguf.strip_prefix("blk.") {
        let (layer, name) = rest.split_once('.')?;
        (format!("layers.{layer}."), name)
    } else {
        let name = gguf.strip_prefix("mtp.0.")?;
        if let Some((_, source)) = DRAFT.iter().find(|(n, _)| *n == name) {
            return Some(SourceName::One(format!("mtp.0.{source}")));
        }
        ("mtp.0.".to_owned(), name)
    };
    if let Some((_, after)) = EXPERTS.iter().find(|(n, _)| *n == name) {
        return Some(SourceName::PerExpert { before: format!("{prefix}ffn.experts."), after });
    }
    let (_, source) = LAYER.iter().find(|(n, _)| *n == name)?;
    Some(SourceName::One(format!("{prefix}{source}")))
}

const GLOBAL: &[(&str, &str)] = &[
    ("token_embd.weight", "embed.weight"),
    ("output_norm.weight", "norm.weight"),
    ("output.weight", "head.weight"),
    ("output_hc_fn.weight", "hc_head_fn"),
    ("output_hc_scale.weight", "hc_head_scale"),
    ("output_hc_base.weight", "hc_head_base"),
];

/// What a draft block has beside a layer.
const DRAFT: &[(&str, &str)] = &[
    ("e_proj.weight", "e_proj.weight"),
    ("h_proj.weight", "h_proj.weight"),
    ("enorm.weight", "enorm.weight"),
    ("hnorm.weight", "hnorm.weight"),
    ("norm.weight", "norm.weight"),
    ("hc_head_fn.weight", "hc_head_fn"),
    ("hc_head_scale.weight", "hc_head_scale"),
    ("hc_head_base.weight", "hc_head_base"),
];

const EXPERTS: &[(&str, &str)] = &[
    ("ffn_gate_exps.weight", ".w1.weight"),
    ("ffn_up_exps.weight", ".w3.weight"),
    ("ffn_down_exps.weight", ".w2.weight"),
];

const LAYER: &[(&str, &str)] = &[
    ("hc_attn_fn.weight", "hc_attn_fn"),
    ("hc_attn_scale.weight", "hc_attn_scale"),
    ("hc_attn_base.weight", "hc_attn_base"),
    ("attn_norm.weight", "attn_norm.weight"),
    ("attn_q_a.weight", "attn.wq_a.weight"),
    ("attn_q_a_norm.weight", "attn.q_norm.weight"),
    ("attn_q_b.weight", "attn.wq_b.weight"),
    ("attn_kv.weight", "attn.wkv.weight"),
    ("attn_kv_a_norm.weight", "attn.kv_norm.weight"),
    ("attn_sinks.weight", "attn.attn_sink"),
    ("attn_output_a.weight", "attn.wo_a.weight"),
    ("attn_output_b.weight", "attn.wo_b.weight"),
    ("attn_compressor_kv.weight", "attn.compressor.wkv.weight"),
    ("attn_compressor_gate.weight", "attn.compressor.wgate.weight"),
    ("attn_compressor_ape.weight", "attn.compressor.ape"),
    ("attn_compressor_norm.weight", "attn.compressor.norm.weight"),
    ("indexer.attn_q_b.weight", "attn.indexer.wq_b.weight"),
    ("indexer.proj.weight", "attn.indexer.weights_proj.weight"),
    ("indexer_compressor_kv.weight", "attn.indexer.compressor.wkv.weight"),
    ("indexer_compressor_gate.weight", "attn.indexer.compressor.wgate.weight"),
    ("indexer_compressor_ape.weight", "attn.indexer.compressor.ape"),
    ("indexer_compressor_norm.weight", "attn.indexer.compressor.norm.weight"),
    ("hc_ffn_fn.weight", "hc_ffn_fn"),
    ("hc_ffn_scale.weight", "hc_ffn_scale"),
    ("hc_ffn_base.weight", "hc_ffn_base"),
    ("ffn_norm.weight", "ffn_norm.weight"),
    ("ffn_gate_inp.weight", "ffn.gate.weight"),
    ("exp_probs_b.bias", "ffn.gate.bias"),
    ("ffn_gate_tid2eid.weight", "ffn.gate.tid2eid"),
    ("ffn_gate_shexp.weight", "ffn.shared_experts.w1.weight"),
    ("ffn_up_shexp.weight", "ffn.shared_experts.w3.weight"),
    ("ffn_down_shexp.weight", "ffn.shared_experts.w2.weight"),
];

#[cfg(test)]
mod tests {
    use ds4_model::{Shape, draft_specs, tensor_specs};

    use super::*;

    #[test]
    fn every_tensor_of_both_files_has_a_source_of_its_own() {
        let shape = Shape::flash();
        let specs = tensor_specs(&shape).into_iter().chain(draft_specs(&shape));
        let sources: Vec<String> =
            specs.map(|spec| source_of(&spec.name).unwrap_or_else(|| panic!("{}", spec.name)).matrix(7)).collect();
        let unique: std::collections::BTreeSet<&String> = sources.iter().collect();
        assert_eq!((sources.len(), unique.len()), (1328 + 32, 1328 + 32));
    }

    #[test]
    fn names_are_those_of_the_published_checkpoint() {
        let name = |gguf: &str| source_of(gguf).expect(gguf).matrix(3);
        assert_eq!(name("blk.12.ffn_down_exps.weight"), "layers.12.ffn.experts.3.w2.weight");
        assert_eq!(name("mtp.0.hc_head_fn.weight"), "mtp.0.hc_head_fn");
        assert_eq!(name("mtp.0.attn_sinks.weight"), "mtp.0.attn.attn_sink");
        assert_eq!(name("output_hc_base.weight"), "hc_head_base");
        assert_eq!(source_of("blk.0.nonsense.weight"), None);
    }
}
