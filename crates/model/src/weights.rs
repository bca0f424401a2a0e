//! The one list of tensor names, dims and roles (gguf.md section 4). Loading, validation and synthesis walk the same
//! text; this module knows no device and reads no weight except the hash tables' ids.

use ds4_gguf::{DType, Dims, Gguf, Tensor, dequant};

use crate::{Error, HC, Result, Shape};

/// What a tensor is for: decides its accepted types here and its storage type in a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Token embedding table.
    Embedding,
    /// Vocabulary projection.
    Output,
    /// RMS norm weights.
    Norm,
    /// Hyper-connection projections.
    HcFn,
    /// Hyper-connection scales.
    HcScale,
    /// Hyper-connection bases.
    HcBase,
    /// Query, key-value and output projections of attention.
    AttnProj,
    /// Attention sinks.
    Sinks,
    /// Compressor value and gate projections.
    Compressor,
    /// Compressor position biases.
    CompressorApe,
    /// Indexer query and weight projections, and the indexer's own compressor.
    Indexer,
    /// Router projection.
    Router,
    /// Router selection bias.
    RouterBias,
    /// Token-to-expert tables.
    HashTable,
    /// Routed gate and up experts.
    ExpertGateUp,
    /// Routed down experts.
    ExpertDown,
    /// Shared expert.
    Shared,
}

impl Class {
    /// Types that a file may hold this class in.
    pub fn accepted(self) -> &'static [DType] {
        use DType::{Bf16, F16, F32, I32, Iq2Xxs, Mxfp4, Q2K, Q4K, Q8_0};
        match self {
            Class::HashTable => &[I32],
            Class::Norm | Class::HcScale | Class::HcBase | Class::Sinks | Class::RouterBias | Class::CompressorApe => {
                &[F32, F16, Bf16]
            }
            _ => &[F32, F16, Bf16, Q8_0, Q2K, Q4K, Iq2Xxs, Mxfp4],
        }
    }
}

/// Name, dims (fastest first) and role of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// GGUF name.
    pub name: String,
    /// GGUF dims.
    pub dims: Dims,
    /// Role.
    pub class: Class,
}

/// All weights of the main model.
#[derive(Debug)]
pub struct Weights<W> {
    /// `token_embd` `[n_embd, n_vocab]`
    pub token_embd: W,
    /// One entry per main layer.
    pub layers: Vec<LayerWeights<W>>,
    /// What turns streams into the input of `output`.
    pub head: HeadWeights<W>,
    /// `output` `[n_embd, n_vocab]`
    pub output: W,
}

/// One layer, grouped by the stage that reads it.
#[derive(Debug)]
pub struct LayerWeights<W> {
    /// Attention's collapse site.
    pub hc_attn: HyperConnection<W>,
    /// Every product of the attention input.
    pub project: ProjectWeights<W>,
    /// Every product of the low-rank query.
    pub query: QueryWeights<W>,
    /// Present if the layer compresses.
    pub compressor: Option<CompressorWeights<W>>,
    /// `attn_sinks` `[n_head]`
    pub attn_sinks: W,
    /// Grouped low-rank output.
    pub attn_output: AttnOutputWeights<W>,
    /// The feed-forward half's collapse site.
    pub hc_ffn: HyperConnection<W>,
    /// Router and the shared expert's first half.
    pub route: RouteWeights<W>,
    /// Routed experts and the shared expert's second half.
    pub experts: ExpertWeights<W>,
}

/// A hyper-connection site and the norm of the sublayer behind it.
#[derive(Debug)]
pub struct HyperConnection<W> {
    /// `[HC * n_embd, 2 * HC + HC * HC]`
    pub mix: W,
    /// `[3]`
    pub scale: W,
    /// `[2 * HC + HC * HC]`
    pub base: W,
    /// `[n_embd]`
    pub norm: W,
}

/// Weights of stage `project`.
#[derive(Debug)]
pub struct ProjectWeights<W> {
    /// Compression ratio of the layer: 0, 4 or 128. Decides the rotary table too.
    pub ratio: u32,
    /// `attn_q_a` `[n_embd, q_lora_dim]`
    pub q_a: W,
    /// `attn_q_a_norm` `[q_lora_dim]`
    pub q_a_norm: W,
    /// `attn_kv` `[n_embd, head_dim]`
    pub kv: W,
    /// `attn_kv_a_norm` `[head_dim]`
    pub kv_a_norm: W,
    /// Inputs of the attention compressor.
    pub pooled: Option<PooledProjection<W>>,
    /// Inputs of the indexer.
    pub index: Option<IndexProjections<W>>,
}

/// Value and gate rows of a compressor; `w` is `Shape::pooled_dim`.
#[derive(Debug)]
pub struct PooledProjection<W> {
    /// `[n_embd, w]`
    pub kv: W,
    /// `[n_embd, w]`
    pub gate: W,
    /// `[w, ratio]`, added to the gate by `pos % ratio`
    pub ape: W,
}

/// What the indexer takes from the attention input.
#[derive(Debug)]
pub struct IndexProjections<W> {
    /// Head weights, `[n_embd, n_index_head]`
    pub proj: W,
    /// Inputs of the indexer's compressor.
    pub pooled: PooledProjection<W>,
}

/// Weights of stage `query`.
#[derive(Debug)]
pub struct QueryWeights<W> {
    /// See [`ProjectWeights::ratio`].
    pub ratio: u32,
    /// `attn_q_b` `[q_lora_dim, n_head * head_dim]`
    pub q_b: W,
    /// `indexer.attn_q_b` `[q_lora_dim, n_index_head * index_dim]`
    pub index_q_b: Option<W>,
}

/// Weights of stage `compress`.
#[derive(Debug)]
pub struct CompressorWeights<W> {
    /// 4 or 128.
    pub ratio: u32,
    /// `attn_compressor_norm` `[head_dim]`
    pub norm: W,
    /// `indexer_compressor_norm` `[index_dim]`
    pub index_norm: Option<W>,
}

/// Weights of stage `attn_output`.
#[derive(Debug)]
pub struct AttnOutputWeights<W> {
    /// `attn_output_a` `[n_head * head_dim / n_out_group, n_out_group * out_lora_dim]`
    pub a: W,
    /// `attn_output_b` `[n_out_group * out_lora_dim, n_embd]`
    pub b: W,
}

/// How a layer picks its experts.
#[derive(Debug)]
pub enum RouteChoice<W> {
    /// `exp_probs_b.bias` `[n_expert]`: best of score plus bias.
    Biased(W),
    /// `ffn_gate_tid2eid` `[n_expert_used, n_vocab]`: a row per token id.
    Hashed(W),
}

/// Weights of stage `route`.
#[derive(Debug)]
pub struct RouteWeights<W> {
    /// `ffn_gate_inp` `[n_embd, n_expert]`
    pub gate: W,
    /// Score routing or hash routing.
    pub choice: RouteChoice<W>,
    /// `ffn_gate_shexp` `[n_embd, ff_dim]`
    pub shared_gate: W,
    /// `ffn_up_shexp` `[n_embd, ff_dim]`
    pub shared_up: W,
    /// SwiGLU limit of the layer.
    pub clamp: f32,
}

/// Weights of stage `experts`.
#[derive(Debug)]
pub struct ExpertWeights<W> {
    /// `ffn_gate_exps` `[n_embd, ff_dim, n_expert]`
    pub gate: W,
    /// `ffn_up_exps`, like `gate` and of the same type
    pub up: W,
    /// `ffn_down_exps` `[ff_dim, n_embd, n_expert]`
    pub down: W,
    /// `ffn_down_shexp` `[ff_dim, n_embd]`
    pub shared_down: W,
    /// SwiGLU limit of the layer.
    pub clamp: f32,
}

/// Weights of stage `head` but for the vocabulary matrix.
#[derive(Debug)]
pub struct HeadWeights<W> {
    /// `output_hc_fn` `[HC * n_embd, HC]`
    pub mix: W,
    /// `output_hc_scale` `[1]`
    pub scale: W,
    /// `output_hc_base` `[HC]`
    pub base: W,
    /// `output_norm` `[n_embd]`
    pub norm: W,
}

impl<W> Weights<W> {
    /// Walks the list in file order and asks `take` for each tensor.
    pub fn bind(s: &Shape, take: &mut dyn FnMut(TensorSpec) -> Result<W>) -> Result<Weights<W>> {
        let mut t = Binder { prefix: String::new(), take };
        let token_embd = t.bind("token_embd", [s.n_embd, s.n_vocab], Class::Embedding)?;
        let norm = t.bind("output_norm", [s.n_embd], Class::Norm)?;
        let output = t.bind("output", [s.n_embd, s.n_vocab], Class::Output)?;
        let head = HeadWeights {
            norm,
            mix: t.bind("output_hc_fn", [HC * s.n_embd, HC], Class::HcFn)?,
            scale: t.bind("output_hc_scale", [1], Class::HcScale)?,
            base: t.bind("output_hc_base", [HC], Class::HcBase)?,
        };
        let layer = |il| {
            t.prefix = format!("blk.{il}.");
            let role = Role { ratio: s.ratios[il], clamp: s.swiglu_clamp[il], hashed: il < s.n_hash_layer };
            bind_layer(s, role, &mut t)
        };
        let layers = (0..s.n_layer).map(layer).collect::<Result<_>>()?;
        Ok(Weights { token_embd, layers, head, output })
    }
}

/// Every tensor of a main file of this shape, in file order.
pub fn tensor_specs(shape: &Shape) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    Weights::bind(shape, &mut |spec| {
        specs.push(spec);
        Ok(())
    })
    .expect("collecting specs cannot fail");
    specs
}

/// Checks the directory of a file against its shape without reading a weight.
pub fn validate(file: &Gguf, shape: &Shape) -> Result<()> {
    let types = Weights::bind(shape, &mut |spec| find(file, &spec).map(|tensor| (spec.name, tensor.dtype)))?;
    types.layers.iter().try_for_each(|layer| check_experts(file, &layer.experts))
}

/// Gate and up experts run as one: their types, given with their names, must be equal.
pub(crate) fn check_experts(file: &Gguf, types: &ExpertWeights<(String, DType)>) -> Result<()> {
    let ((gate_name, gate), (up_name, up)) = (&types.gate, &types.up);
    if gate == up {
        return Ok(());
    }
    Err(Error::WrongType {
        file: file.name().to_owned(),
        tensor: up_name.clone(),
        found: up.to_string(),
        expected: format!("{gate} as {gate_name}"),
    })
}

/// The tensor a spec names, with the dims and one of the types it asks for.
pub(crate) fn find(file: &Gguf, spec: &TensorSpec) -> Result<Tensor> {
    let name = || (file.name().to_owned(), spec.name.clone());
    let Some(tensor) = file.tensor(&spec.name) else {
        let (file, tensor) = name();
        return Err(Error::MissingTensor { file, tensor, expected: spec.dims.to_string() });
    };
    if tensor.dims != spec.dims {
        let (file, name) = name();
        return Err(Error::WrongDims {
            file,
            tensor: name,
            found: tensor.dims.to_string(),
            expected: spec.dims.to_string(),
        });
    }
    let accepted = spec.class.accepted();
    if !accepted.contains(&tensor.dtype) {
        let (file, name) = name();
        let expected = accepted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::WrongType { file, tensor: name, found: tensor.dtype.to_string(), expected });
    }
    Ok(tensor)
}

/// A hash table must name existing experts: the ids index weights.
pub(crate) fn check_hash_table(file: &Gguf, tensor: &Tensor, n_expert: usize) -> Result<()> {
    let mut ids = vec![0i32; tensor.n_in()];
    for token in 0..tensor.n_rows() {
        dequant::i32_row(tensor.row(token), &mut ids);
        if let Some(id) = ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= n_expert)) {
            let what = format!("expert {id} for token {token}, expected 0 to {}", n_expert - 1);
            return Err(Error::BadTensor { file: file.name().to_owned(), tensor: tensor.name.to_string(), what });
        }
    }
    Ok(())
}

/// Asks for tensors by their short names.
pub(crate) struct Binder<'a, W> {
    /// Goes in front of every name.
    pub(crate) prefix: String,
    pub(crate) take: &'a mut dyn FnMut(TensorSpec) -> Result<W>,
}

impl<W> Binder<'_, W> {
    pub(crate) fn bind<const N: usize>(&mut self, name: &str, dims: [usize; N], class: Class) -> Result<W> {
        let suffix = if class == Class::RouterBias { "bias" } else { "weight" };
        let name = format!("{}{name}.{suffix}", self.prefix);
        (self.take)(TensorSpec { name, dims: Dims::from(dims.map(|d| d as u64)), class })
    }

    fn hyper_connection(&mut self, s: &Shape, site: &str) -> Result<HyperConnection<W>> {
        let mixes = 2 * HC + HC * HC;
        Ok(HyperConnection {
            mix: self.bind(&format!("hc_{site}_fn"), [HC * s.n_embd, mixes], Class::HcFn)?,
            scale: self.bind(&format!("hc_{site}_scale"), [3], Class::HcScale)?,
            base: self.bind(&format!("hc_{site}_base"), [mixes], Class::HcBase)?,
            norm: self.bind(&format!("{site}_norm"), [s.n_embd], Class::Norm)?,
        })
    }

    fn pooled(&mut self, s: &Shape, name: &str, ratio: u32, width: usize) -> Result<PooledProjection<W>> {
        let w = Shape::pooled_dim(ratio, width);
        let class = if name == "attn_compressor" { Class::Compressor } else { Class::Indexer };
        Ok(PooledProjection {
            kv: self.bind(&format!("{name}_kv"), [s.n_embd, w], class)?,
            gate: self.bind(&format!("{name}_gate"), [s.n_embd, w], class)?,
            ape: self.bind(&format!("{name}_ape"), [w, ratio as usize], Class::CompressorApe)?,
        })
    }
}

/// What sets a layer apart from others of its shape.
#[derive(Clone, Copy)]
pub(crate) struct Role {
    /// 0, 4 or 128.
    pub(crate) ratio: u32,
    /// SwiGLU limit.
    pub(crate) clamp: f32,
    /// Routed by token id.
    pub(crate) hashed: bool,
}

pub(crate) fn bind_layer<W>(s: &Shape, role: Role, t: &mut Binder<'_, W>) -> Result<LayerWeights<W>> {
    let Role { ratio, clamp, hashed } = role;
    let (compresses, indexes) = (ratio != 0, ratio == 4);
    let heads = s.n_head * s.head_dim;
    let hc_attn = t.hyper_connection(s, "attn")?;
    let q_a = t.bind("attn_q_a", [s.n_embd, s.q_lora_dim], Class::AttnProj)?;
    let q_a_norm = t.bind("attn_q_a_norm", [s.q_lora_dim], Class::Norm)?;
    let q_b = t.bind("attn_q_b", [s.q_lora_dim, heads], Class::AttnProj)?;
    let kv = t.bind("attn_kv", [s.n_embd, s.head_dim], Class::AttnProj)?;
    let kv_a_norm = t.bind("attn_kv_a_norm", [s.head_dim], Class::Norm)?;
    let attn_sinks = t.bind("attn_sinks", [s.n_head], Class::Sinks)?;
    let attn_output = AttnOutputWeights {
        a: t.bind("attn_output_a", [heads / s.n_out_group, s.n_out_group * s.out_lora_dim], Class::AttnProj)?,
        b: t.bind("attn_output_b", [s.n_out_group * s.out_lora_dim, s.n_embd], Class::AttnProj)?,
    };
    let pooled = compresses.then(|| t.pooled(s, "attn_compressor", ratio, s.head_dim)).transpose()?;
    let norm = compresses.then(|| t.bind("attn_compressor_norm", [s.head_dim], Class::Norm)).transpose()?;
    let index_dims = [s.q_lora_dim, s.n_index_head * s.index_dim];
    let index_q_b = indexes.then(|| t.bind("indexer.attn_q_b", index_dims, Class::Indexer)).transpose()?;
    let index = indexes.then(|| bind_index(s, ratio, t)).transpose()?;
    let index_norm = indexes.then(|| t.bind("indexer_compressor_norm", [s.index_dim], Class::Norm)).transpose()?;
    Ok(LayerWeights {
        hc_attn,
        project: ProjectWeights { ratio, q_a, q_a_norm, kv, kv_a_norm, pooled, index },
        query: QueryWeights { ratio, q_b, index_q_b },
        compressor: norm.map(|norm| CompressorWeights { ratio, norm, index_norm }),
        attn_sinks,
        attn_output,
        hc_ffn: t.hyper_connection(s, "ffn")?,
        route: RouteWeights {
            gate: t.bind("ffn_gate_inp", [s.n_embd, s.n_expert], Class::Router)?,
            choice: if hashed {
                RouteChoice::Hashed(t.bind("ffn_gate_tid2eid", [s.n_expert_used, s.n_vocab], Class::HashTable)?)
            } else {
                RouteChoice::Biased(t.bind("exp_probs_b", [s.n_expert], Class::RouterBias)?)
            },
            shared_gate: t.bind("ffn_gate_shexp", [s.n_embd, s.ff_dim], Class::Shared)?,
            shared_up: t.bind("ffn_up_shexp", [s.n_embd, s.ff_dim], Class::Shared)?,
            clamp,
        },
        experts: ExpertWeights {
            shared_down: t.bind("ffn_down_shexp", [s.ff_dim, s.n_embd], Class::Shared)?,
            gate: t.bind("ffn_gate_exps", [s.n_embd, s.ff_dim, s.n_expert], Class::ExpertGateUp)?,
            up: t.bind("ffn_up_exps", [s.n_embd, s.ff_dim, s.n_expert], Class::ExpertGateUp)?,
            down: t.bind("ffn_down_exps", [s.ff_dim, s.n_embd, s.n_expert], Class::ExpertDown)?,
            clamp,
        },
    })
}

fn bind_index<W>(s: &Shape, ratio: u32, t: &mut Binder<'_, W>) -> Result<IndexProjections<W>> {
    Ok(IndexProjections {
        proj: t.bind("indexer.proj", [s.n_embd, s.n_index_head], Class::Indexer)?,
        pooled: t.pooled(s, "indexer_compressor", ratio, s.index_dim)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flash_has_the_directory_of_the_published_file() {
        let specs = tensor_specs(&Shape::flash());
        assert_eq!(specs.len(), 1328);
        let dims = |name: &str| specs.iter().find(|spec| spec.name == name).map(|spec| spec.dims);
        assert_eq!(dims("blk.42.exp_probs_b.bias"), Some(Dims::from([256])));
        assert_eq!(dims("blk.2.attn_compressor_ape.weight"), Some(Dims::from([1024, 4])));
        assert_eq!(dims("blk.3.attn_compressor_kv.weight"), Some(Dims::from([4096, 512])));
        assert_eq!(dims("blk.0.attn_output_a.weight"), Some(Dims::from([4096, 8192])));
        assert_eq!(dims("blk.3.indexer.proj.weight"), None);
        assert_eq!(dims("blk.0.ffn_gate_tid2eid.weight"), Some(Dims::from([6, 129_280])));
    }
}
