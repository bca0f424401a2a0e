//! Every dimension of a model, read from metadata. No other file holds a number of a particular model.

use ds4_gguf::{Gguf, Metadata, OwnedValue};

use crate::{Error, Result};

/// Hyper-connection streams. Part of the family, like the two-sided mixing that is built on it.
pub const HC: usize = 4;

/// Block of the E4M3 rounding: the part of a row that is not rotated is a multiple of it.
const E4M3_BLOCK: usize = 64;
/// Largest accepted count or width: keeps every product of three dimensions inside 64 bits.
const MAX_DIM: usize = 1 << 20;

/// Rotary constants (model.md 2.2).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeParams {
    /// `rope.freq_base`: layers without compression.
    pub base: f32,
    /// `attention.compress_rope_freq_base`: all other layers.
    pub compress_base: f32,
    /// `rope.scaling.factor`
    pub yarn_factor: f32,
    /// `rope.scaling.original_context_length`
    pub yarn_original_context: u32,
    /// `rope.scaling.yarn_beta_fast`
    pub beta_fast: f32,
    /// `rope.scaling.yarn_beta_slow`
    pub beta_slow: f32,
}

/// Dimensions and constants of one model of the family (gguf.md section 2). Widths are elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// `general.name`
    pub name: String,
    /// `block_count`: main layers, without a draft block.
    pub n_layer: usize,
    /// `embedding_length`
    pub n_embd: usize,
    /// `vocab_size`
    pub n_vocab: usize,
    /// `attention.head_count`
    pub n_head: usize,
    /// `attention.key_length`, equal to `attention.value_length`
    pub head_dim: usize,
    /// `rope.dimension_count`: the rotated tail of each head
    pub n_rot: usize,
    /// `attention.q_lora_rank`
    pub q_lora_dim: usize,
    /// `attention.output_group_count`
    pub n_out_group: usize,
    /// `attention.output_lora_rank`
    pub out_lora_dim: usize,
    /// `attention.sliding_window`
    pub window: usize,
    /// `attention.indexer.head_count`
    pub n_index_head: usize,
    /// `attention.indexer.key_length`
    pub index_dim: usize,
    /// `attention.indexer.top_k`
    pub index_top_k: usize,
    /// `attention.compress_ratios`: 0, 4 or 128 per main layer
    pub ratios: Vec<u32>,
    /// `expert_count`
    pub n_expert: usize,
    /// `expert_used_count`
    pub n_expert_used: usize,
    /// `expert_feed_forward_length`: of routed and shared experts
    pub ff_dim: usize,
    /// `hash_layer_count`: leading layers routed by token id
    pub n_hash_layer: usize,
    /// `expert_weights_scale`
    pub expert_scale: f32,
    /// `swiglu_clamp_exp`, per main layer
    pub swiglu_clamp: Vec<f32>,
    /// `hyper_connection.sinkhorn_iterations`
    pub sinkhorn_iters: usize,
    /// `hyper_connection.epsilon`
    pub hc_eps: f32,
    /// `attention.layer_norm_rms_epsilon`
    pub rms_eps: f32,
    /// `context_length`: what the model was trained for
    pub context: u32,
    /// Rotary constants.
    pub rope: RopeParams,
}

impl Shape {
    /// The shape a file declares, checked against what the family can be.
    pub fn from_gguf(file: &Gguf) -> Result<Shape> {
        let mut shape = Shape::from_metadata(file.metadata())?;
        // A conversion that packs draft blocks behind the main layers counts them as layers (gguf.md section 5).
        let drafts = match file.metadata().get("deepseek4.nextn_predict_layers") {
            Some(_) => file.metadata().u32("deepseek4.nextn_predict_layers")? as usize,
            None => 0,
        };
        let main = shape.n_layer.saturating_sub(drafts);
        if drafts > 0 && main > 0 && file.tensor(&format!("blk.{main}.nextn.eh_proj.weight")).is_some() {
            shape.n_layer = main;
            shape.ratios.truncate(main);
            shape.swiglu_clamp.truncate(main);
        }
        Ok(shape)
    }

    /// The shape that metadata declares. Every layer of `block_count` is a main layer.
    pub fn from_metadata(meta: &Metadata) -> Result<Shape> {
        let read = Reader { meta };
        let architecture = meta.str("general.architecture")?;
        if architecture != "deepseek4" {
            return Err(read.wrong("general.architecture", architecture, "deepseek4"));
        }
        let n_layer = read.dim("block_count")?;
        let shape = Shape {
            name: if meta.contains("general.name") {
                meta.str("general.name")?.to_owned()
            } else {
                "unnamed".to_owned()
            },
            n_layer,
            n_embd: read.dim("embedding_length")?,
            n_vocab: read.dim("vocab_size")?,
            n_head: read.dim("attention.head_count")?,
            head_dim: read.dim("attention.key_length")?,
            n_rot: read.dim("rope.dimension_count")?,
            q_lora_dim: read.dim("attention.q_lora_rank")?,
            n_out_group: read.dim("attention.output_group_count")?,
            out_lora_dim: read.dim("attention.output_lora_rank")?,
            window: read.dim("attention.sliding_window")?,
            n_index_head: read.dim("attention.indexer.head_count")?,
            index_dim: read.dim("attention.indexer.key_length")?,
            index_top_k: read.dim("attention.indexer.top_k")?,
            ratios: read.per_layer("attention.compress_ratios", n_layer, |key| meta.u32s(key))?,
            n_expert: read.dim("expert_count")?,
            n_expert_used: read.dim("expert_used_count")?,
            ff_dim: read.dim("expert_feed_forward_length")?,
            n_hash_layer: read.u32("hash_layer_count")? as usize,
            expert_scale: read.f32("expert_weights_scale")?,
            swiglu_clamp: read.per_layer("swiglu_clamp_exp", n_layer, |key| meta.f32s(key))?,
            sinkhorn_iters: read.dim("hyper_connection.sinkhorn_iterations")?,
            hc_eps: read.f32("hyper_connection.epsilon")?,
            rms_eps: read.f32("attention.layer_norm_rms_epsilon")?,
            context: if meta.contains("deepseek4.context_length") { read.u32("context_length")? } else { 1 << 20 },
            rope: RopeParams {
                base: read.f32("rope.freq_base")?,
                compress_base: read.f32("attention.compress_rope_freq_base")?,
                yarn_factor: read.f32("rope.scaling.factor")?,
                yarn_original_context: read.u32("rope.scaling.original_context_length")?,
                beta_fast: read.f32("rope.scaling.yarn_beta_fast")?,
                beta_slow: read.f32("rope.scaling.yarn_beta_slow")?,
            },
        };
        read.fixed()?;
        shape.check(&read)?;
        Ok(shape)
    }

    /// The `deepseek4.*` records of this shape, in the order of the published files: the inverse of
    /// [`Shape::from_metadata`].
    pub fn metadata(&self) -> Vec<(String, OwnedValue)> {
        let u = |v: usize| OwnedValue::U32(v as u32);
        // The published array carries one more entry, 0, for the draft block.
        let ratios = self.ratios.iter().map(|&r| r as i32).chain([0]).collect();
        let entries: Vec<(&str, OwnedValue)> = vec![
            ("block_count", u(self.n_layer)),
            ("context_length", OwnedValue::U32(self.context)),
            ("embedding_length", u(self.n_embd)),
            ("vocab_size", u(self.n_vocab)),
            ("attention.head_count", u(self.n_head)),
            ("attention.head_count_kv", u(1)),
            ("attention.key_length", u(self.head_dim)),
            ("attention.value_length", u(self.head_dim)),
            ("attention.q_lora_rank", u(self.q_lora_dim)),
            ("attention.output_lora_rank", u(self.out_lora_dim)),
            ("attention.output_group_count", u(self.n_out_group)),
            ("attention.sliding_window", u(self.window)),
            ("attention.layer_norm_rms_epsilon", OwnedValue::F32(self.rms_eps)),
            ("attention.indexer.head_count", u(self.n_index_head)),
            ("attention.indexer.key_length", u(self.index_dim)),
            ("attention.indexer.top_k", u(self.index_top_k)),
            ("attention.compress_ratios", OwnedValue::I32s(ratios)),
            ("attention.compress_rope_freq_base", OwnedValue::F32(self.rope.compress_base)),
            ("rope.dimension_count", u(self.n_rot)),
            ("rope.freq_base", OwnedValue::F32(self.rope.base)),
            ("rope.scaling.type", OwnedValue::Str("yarn".to_owned())),
            ("rope.scaling.factor", OwnedValue::F32(self.rope.yarn_factor)),
            ("rope.scaling.original_context_length", OwnedValue::U32(self.rope.yarn_original_context)),
            ("rope.scaling.yarn_beta_fast", OwnedValue::F32(self.rope.beta_fast)),
            ("rope.scaling.yarn_beta_slow", OwnedValue::F32(self.rope.beta_slow)),
            ("expert_count", u(self.n_expert)),
            ("expert_used_count", u(self.n_expert_used)),
            ("expert_shared_count", u(1)),
            ("expert_feed_forward_length", u(self.ff_dim)),
            ("expert_weights_scale", OwnedValue::F32(self.expert_scale)),
            ("expert_weights_norm", OwnedValue::Bool(true)),
            ("expert_gating_func", u(4)),
            ("expert_group_count", u(0)),
            ("expert_group_used_count", u(0)),
            ("hash_layer_count", u(self.n_hash_layer)),
            ("swiglu_clamp_exp", OwnedValue::F32s(self.swiglu_clamp.clone())),
            ("hyper_connection.count", u(HC)),
            ("hyper_connection.sinkhorn_iterations", u(self.sinkhorn_iters)),
            ("hyper_connection.epsilon", OwnedValue::F32(self.hc_eps)),
            ("nextn_predict_layers", u(1)),
        ];
        entries.into_iter().map(|(key, value)| (format!("deepseek4.{key}"), value)).collect()
    }

    /// The released Flash model.
    pub fn flash() -> Shape {
        let n_layer = 43;
        Shape {
            name: "DeepSeek V4 Flash".to_owned(),
            n_layer,
            n_embd: 4096,
            n_vocab: 129_280,
            n_head: 64,
            head_dim: 512,
            n_rot: 64,
            q_lora_dim: 1024,
            n_out_group: 8,
            out_lora_dim: 1024,
            window: 128,
            n_index_head: 64,
            index_dim: 128,
            index_top_k: 512,
            ratios: (0..n_layer)
                .map(|il| {
                    if il < 2 {
                        0
                    } else if il % 2 == 0 {
                        4
                    } else {
                        128
                    }
                })
                .collect(),
            n_expert: 256,
            n_expert_used: 6,
            ff_dim: 2048,
            n_hash_layer: 3,
            expert_scale: 1.5,
            swiglu_clamp: vec![10.0; n_layer],
            sinkhorn_iters: 20,
            hc_eps: 1e-6,
            rms_eps: 1e-6,
            context: 1 << 20,
            rope: RopeParams {
                base: 10_000.0,
                compress_base: 160_000.0,
                yarn_factor: 16.0,
                yarn_original_context: 65_536,
                beta_fast: 32.0,
                beta_slow: 1.0,
            },
        }
    }

    /// The larger model of the family, from public descriptions (model.md section 1): dimensions that are not public are
    /// those of Flash.
    pub fn pro() -> Shape {
        let n_layer = 61;
        Shape {
            name: "DeepSeek V4 Pro".to_owned(),
            n_layer,
            n_embd: 7168,
            n_head: 128,
            q_lora_dim: 1536,
            n_out_group: 16,
            index_top_k: 1024,
            ratios: (0..n_layer).map(|il| if il < 2 || il % 2 == 1 { 128 } else { 4 }).collect(),
            n_expert: 384,
            ff_dim: 3072,
            expert_scale: 2.5,
            swiglu_clamp: vec![10.0; n_layer],
            ..Shape::flash()
        }
    }

    /// The part of a head that is not rotated.
    pub fn nope_dim(&self) -> usize {
        self.head_dim - self.n_rot
    }

    /// Width of a compressor's value (and gate) row for rows of `width`: overlapping windows carry two halves.
    pub fn pooled_dim(ratio: u32, width: usize) -> usize {
        if ratio == 4 { 2 * width } else { width }
    }

    fn check(&self, read: &Reader<'_>) -> Result<()> {
        let bad =
            |key: &str, found: String, expected: String| Err(read.wrong(&format!("deepseek4.{key}"), found, expected));
        if !self.n_rot.is_multiple_of(2) || self.n_rot > self.head_dim || self.n_rot > self.index_dim {
            return bad(
                "rope.dimension_count",
                self.n_rot.to_string(),
                "an even number, at most the head widths".to_owned(),
            );
        }
        if self.nope_dim() == 0 || !self.nope_dim().is_multiple_of(E4M3_BLOCK) {
            let expected = format!("rope.dimension_count {} plus a multiple of {E4M3_BLOCK}", self.n_rot);
            return bad("attention.key_length", self.head_dim.to_string(), expected);
        }
        if !self.index_dim.is_power_of_two() || self.index_dim < 32 {
            return bad(
                "attention.indexer.key_length",
                self.index_dim.to_string(),
                "a power of two from 32".to_owned(),
            );
        }
        if !self.n_head.is_multiple_of(self.n_out_group) {
            return bad(
                "attention.output_group_count",
                self.n_out_group.to_string(),
                format!("a divisor of {} heads", self.n_head),
            );
        }
        if let Some(ratio) = self.ratios.iter().find(|r| ![0, 4, 128].contains(*r)) {
            return bad("attention.compress_ratios", ratio.to_string(), "0, 4 or 128".to_owned());
        }
        if self.n_expert_used > self.n_expert {
            return bad(
                "expert_used_count",
                self.n_expert_used.to_string(),
                format!("at most expert_count {}", self.n_expert),
            );
        }
        if self.n_hash_layer > self.n_layer {
            return bad(
                "hash_layer_count",
                self.n_hash_layer.to_string(),
                format!("at most block_count {}", self.n_layer),
            );
        }
        let positive = [
            ("rope.freq_base", self.rope.base),
            ("attention.compress_rope_freq_base", self.rope.compress_base),
            ("rope.scaling.factor", self.rope.yarn_factor),
            ("rope.scaling.yarn_beta_fast", self.rope.beta_fast),
            ("rope.scaling.yarn_beta_slow", self.rope.beta_slow),
            ("attention.layer_norm_rms_epsilon", self.rms_eps),
            ("hyper_connection.epsilon", self.hc_eps),
            ("expert_weights_scale", self.expert_scale),
        ];
        let clamps = self.swiglu_clamp.iter().map(|&clamp| ("swiglu_clamp_exp", clamp));
        for (key, value) in positive.into_iter().chain(clamps) {
            if !(value.is_finite() && value > 0.0) {
                return bad(key, value.to_string(), "a positive number".to_owned());
            }
        }
        if self.context == 0 || self.rope.yarn_original_context == 0 {
            return bad("context_length", "0".to_owned(), "at least 1".to_owned());
        }
        Ok(())
    }
}

/// Typed access to the `deepseek4.*` keys.
struct Reader<'a> {
    meta: &'a Metadata,
}

impl Reader<'_> {
    fn wrong(&self, key: &str, found: impl Into<String>, expected: impl Into<String>) -> Error {
        let file = self.meta.file().to_owned();
        Error::Metadata { file, key: key.to_owned(), found: found.into(), expected: expected.into() }
    }

    fn u32(&self, key: &str) -> Result<u32> {
        let key = format!("deepseek4.{key}");
        let value = self.meta.u64(&key)?;
        u32::try_from(value).map_err(|_| self.wrong(&key, value.to_string(), "a 32-bit number"))
    }

    fn f32(&self, key: &str) -> Result<f32> {
        Ok(self.meta.f32(&format!("deepseek4.{key}"))?)
    }

    fn dim(&self, key: &str) -> Result<usize> {
        let value = self.u32(key)? as usize;
        if value == 0 || value > MAX_DIM {
            return Err(self.wrong(&format!("deepseek4.{key}"), value.to_string(), format!("1 to {MAX_DIM}")));
        }
        Ok(value)
    }

    fn per_layer<T>(
        &self,
        key: &str,
        n_layer: usize,
        get: impl Fn(&str) -> ds4_gguf::Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let key = format!("deepseek4.{key}");
        let mut values = get(&key)?;
        if values.len() < n_layer {
            return Err(self.wrong(&key, format!("{} entries", values.len()), format!("at least {n_layer}")));
        }
        values.truncate(n_layer);
        Ok(values)
    }

    /// Values that are the same in every model of the family; the optional ones are checked when present.
    fn fixed(&self) -> Result<()> {
        let required =
            [("attention.head_count_kv", 1), ("expert_shared_count", 1), ("hyper_connection.count", HC as u32)];
        let optional = [("expert_group_count", 0), ("expert_group_used_count", 0), ("expert_gating_func", 4)];
        let present = optional.into_iter().filter(|(key, _)| self.meta.contains(&format!("deepseek4.{key}")));
        for (key, expected) in required.into_iter().chain(present) {
            let found = self.u32(key)?;
            if found != expected {
                return Err(self.wrong(&format!("deepseek4.{key}"), found.to_string(), expected.to_string()));
            }
        }
        let (key, value) = (self.u32("attention.key_length")?, self.u32("attention.value_length")?);
        if key != value {
            return Err(self.wrong("deepseek4.attention.value_length", value.to_string(), format!("key_length {key}")));
        }
        if !self.meta.bool("deepseek4.expert_weights_norm")? {
            return Err(self.wrong("deepseek4.expert_weights_norm", "false", "true"));
        }
        let scaling = "deepseek4.rope.scaling.type";
        if self.meta.contains(scaling) && self.meta.str(scaling)? != "yarn" {
            return Err(self.wrong(scaling, self.meta.str(scaling)?, "yarn"));
        }
        Ok(())
    }
}
