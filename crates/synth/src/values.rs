//! What a tensor's values are like: one law per role, so that activations keep about unit variance through the layers. Owns
//! the numbers; the storage format is the recipe's.

use ds4_model::{Class, Shape, TensorSpec};

/// The law that a tensor's elements follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Values {
    Normal {
        mean: f32,
        std: f32,
    },
    Uniform {
        low: f32,
        high: f32,
    },
    /// Rows of distinct expert ids below `n_expert`.
    Experts {
        n_expert: u32,
    },
}

impl Values {
    pub(crate) fn of(spec: &TensorSpec, shape: &Shape) -> Self {
        let zero = |std| Self::Normal { mean: 0.0, std };
        // A row of n_in such weights has a product of variance 1 with unit inputs.
        let per_row = (spec.dims[0] as f32).sqrt().recip();
        match spec.class {
            Class::Embedding => zero(1.0),
            Class::Output => zero(2.0 * per_row),
            Class::Norm => norm(&spec.name),
            Class::HcBase => zero(0.6),
            Class::HcScale => Self::Uniform { low: 0.5, high: 1.5 },
            // Attention averages rows, which makes them smaller; the first output product makes up for it.
            Class::AttnProj if spec.name.ends_with("attn_output_a.weight") => zero(2.0 * per_row),
            Class::Sinks => Self::Normal { mean: 0.5, std: 1.0 },
            Class::CompressorApe => zero(0.7),
            Class::Router => zero(1.5 * per_row),
            Class::RouterBias => zero(0.15),
            Class::HashTable => Self::Experts { n_expert: shape.n_expert as u32 },
            Class::ExpertGateUp => zero(1.3 * per_row),
            Class::AttnProj | Class::HcFn | Class::Compressor | Class::Indexer | Class::ExpertDown | Class::Shared => {
                zero(per_row)
            }
        }
    }
}

/// Norms of the rows that attention scores are made of are a little larger, so that the scores are not all alike.
fn norm(name: &str) -> Values {
    let is_key = name.ends_with("kv_a_norm.weight") || name.ends_with("attn_compressor_norm.weight");
    let mean = if is_key { 1.3 } else { 1.0 };
    Values::Normal { mean, std: 0.2 * mean }
}
