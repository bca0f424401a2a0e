//! `config.json` to a shape. Owns the Hugging Face key names and the values that the family cannot vary.

use std::path::{Path, PathBuf};

use ds4_gguf::{DEFAULT_ALIGNMENT, Gguf, Layout, OwnedValue};
use ds4_model::{HC, RopeParams, Shape};
use serde_json::Value;

use crate::{
    error::{Error, Result, clean, shown},
    source::{parse_value, read_json},
};

/// What a checkpoint says of itself.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) shape: Shape,
    pub(crate) bos: u32,
    pub(crate) eos: u32,
    pub(crate) pad: u32,
    /// Draft blocks that come with the checkpoint.
    pub(crate) drafts: u32,
}

impl Config {
    /// Reads `config.json` of a folder. `name` becomes `general.name`; without one, that of the released model with this
    /// shape, else the folder's.
    pub(crate) fn read(folder: &Path, name: Option<&str>) -> Result<Self> {
        let path = folder.join("config.json");
        let value = parse_value(&path, &read_json(&path)?)?;
        let json = Json { path: &path, value: &value, place: String::new() };
        json.fixed()?;
        let mut shape = json.shape()?;
        shape.name = name.map_or_else(|| known_name(&shape, folder), str::to_owned);
        check(&path, &shape)?;
        let eos = json.u32("eos_token_id")?;
        Ok(Self {
            bos: json.u32("bos_token_id")?,
            eos,
            pad: if json.has("pad_token_id") { json.u32("pad_token_id")? } else { eos },
            drafts: if json.has("num_nextn_predict_layers") { json.u32("num_nextn_predict_layers")? } else { 0 },
            shape,
        })
    }

    /// `deepseek4.*`, with the number of draft blocks that there really are.
    pub(crate) fn metadata(&self) -> Vec<(String, OwnedValue)> {
        let mut records = self.shape.metadata();
        for (key, value) in &mut records {
            if key == "deepseek4.nextn_predict_layers" {
                *value = self.drafts.into();
            }
        }
        records
    }
}

fn known_name(shape: &Shape, folder: &Path) -> String {
    let known = [Shape::flash(), Shape::pro()];
    if let Some(known) = known.into_iter().find(|known| Shape { name: known.name.clone(), ..shape.clone() } == *known) {
        return known.name;
    }
    let full: PathBuf = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    full.file_name().map_or_else(|| "unnamed".to_owned(), |name| clean(&name.to_string_lossy()))
}

/// A file that the engine would refuse is not written: its own reader judges the shape.
fn check(path: &Path, shape: &Shape) -> Result<()> {
    let mut records = vec![("general.architecture".to_owned(), OwnedValue::from("deepseek4"))];
    records.extend(shape.metadata());
    let bare = Layout::new(records, Vec::new(), DEFAULT_ALIGNMENT)?;
    let file = Gguf::from_bytes(&shown(path), bare.header().to_vec().into())?;
    Shape::from_metadata(file.metadata())?;
    Ok(())
}

/// Typed access to one object.
struct Json<'a> {
    path: &'a Path,
    value: &'a Value,
    place: String,
}

impl Json<'_> {
    fn wrong(&self, key: &str, expected: impl Into<String>) -> Error {
        let found = self.value.get(key).map_or("nothing".to_owned(), |v| clean(&v.to_string()));
        Error::invalid(shown(self.path), format!("key {}{key}", self.place), found, expected)
    }

    fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(|v| !v.is_null())
    }

    fn u32(&self, key: &str) -> Result<u32> {
        let number = self.value.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        number.ok_or_else(|| self.wrong(key, "a count"))
    }

    fn dim(&self, key: &str) -> Result<usize> {
        Ok(self.u32(key)? as usize)
    }

    fn f32(&self, key: &str) -> Result<f32> {
        let number = self.value.get(key).and_then(Value::as_f64).map(|n| n as f32);
        number.filter(|n| n.is_finite()).ok_or_else(|| self.wrong(key, "a number"))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.value.get(key).and_then(Value::as_str)
    }

    /// What is the same in every model of the family.
    fn fixed(&self) -> Result<()> {
        for (key, expected) in [("num_key_value_heads", 1), ("n_shared_experts", 1), ("hc_mult", HC as u32)] {
            if self.u32(key)? != expected {
                return Err(self.wrong(key, expected.to_string()));
            }
        }
        if self.text("scoring_func") != Some("sqrtsoftplus") {
            return Err(self.wrong("scoring_func", "sqrtsoftplus"));
        }
        if self.value.get("norm_topk_prob") != Some(&Value::Bool(true)) {
            return Err(self.wrong("norm_topk_prob", "true"));
        }
        Ok(())
    }

    fn shape(&self) -> Result<Shape> {
        let n_layer = self.dim("num_hidden_layers")?;
        Ok(Shape {
            name: String::new(),
            n_layer,
            n_embd: self.dim("hidden_size")?,
            n_vocab: self.dim("vocab_size")?,
            n_head: self.dim("num_attention_heads")?,
            head_dim: self.dim("head_dim")?,
            n_rot: self.dim("qk_rope_head_dim")?,
            q_lora_dim: self.dim("q_lora_rank")?,
            n_out_group: self.dim("o_groups")?,
            out_lora_dim: self.dim("o_lora_rank")?,
            window: self.dim("sliding_window")?,
            n_index_head: self.dim("index_n_heads")?,
            index_dim: self.dim("index_head_dim")?,
            index_top_k: self.dim("index_topk")?,
            ratios: self.ratios(n_layer)?,
            n_expert: self.dim("n_routed_experts")?,
            n_expert_used: self.dim("num_experts_per_tok")?,
            ff_dim: self.dim("moe_intermediate_size")?,
            n_hash_layer: self.dim("num_hash_layers")?,
            expert_scale: self.f32("routed_scaling_factor")?,
            swiglu_clamp: vec![self.f32("swiglu_limit")?; n_layer],
            sinkhorn_iters: self.dim("hc_sinkhorn_iters")?,
            hc_eps: self.f32("hc_eps")?,
            rms_eps: self.f32("rms_norm_eps")?,
            context: self.u32("max_position_embeddings")?,
            rope: self.rope()?,
        })
    }

    /// One per main layer; published lists go on with the draft block's.
    fn ratios(&self, n_layer: usize) -> Result<Vec<u32>> {
        let expected = || format!("at least {n_layer} ratios");
        let list = self.value.get("compress_ratios").and_then(Value::as_array).filter(|list| list.len() >= n_layer);
        let list = list.ok_or_else(|| self.wrong("compress_ratios", expected()))?;
        let ratios = list[..n_layer].iter().map(|r| r.as_u64().and_then(|r| u32::try_from(r).ok()));
        ratios.collect::<Option<_>>().ok_or_else(|| self.wrong("compress_ratios", expected()))
    }

    fn rope(&self) -> Result<RopeParams> {
        let Some(value) = self.value.get("rope_scaling").filter(|v| v.is_object()) else {
            return Err(self.wrong("rope_scaling", "an object"));
        };
        let scaling = Json { path: self.path, value, place: "rope_scaling.".to_owned() };
        // Newer tools write `rope_type`.
        let kind = if scaling.has("rope_type") { "rope_type" } else { "type" };
        if scaling.text(kind) != Some("yarn") {
            return Err(scaling.wrong(kind, "yarn"));
        }
        Ok(RopeParams {
            base: self.f32("rope_theta")?,
            compress_base: self.f32("compress_rope_theta")?,
            yarn_factor: scaling.f32("factor")?,
            yarn_original_context: scaling.u32("original_max_position_embeddings")?,
            beta_fast: scaling.f32("beta_fast")?,
            beta_slow: scaling.f32("beta_slow")?,
        })
    }
}
