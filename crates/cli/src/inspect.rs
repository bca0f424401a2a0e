//! `--inspect`: what a model file holds. Reads the header and the tensor directory, never a weight.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use ds4_gguf::{Gguf, Metadata};
use ds4_model::{Shape, tensor_specs, validate};
use serde_json::{Value, json};

use crate::config::{Config, Format};
use crate::device::open_gguf;
use crate::memory::size;
use crate::terminal;

pub(crate) fn run(config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let gguf = open_gguf(&config.model, config.quiet)?;
    let shape = Shape::from_gguf(&gguf)?;
    validate(&gguf, &shape)?;
    let summary = Summary::of(&gguf, &shape)?;
    let text = match config.format {
        Format::Json => format!("{}\n", summary.json(&gguf, &shape)),
        _ => summary.text(&gguf, &shape),
    };
    terminal::show(out, &text)
}

/// What the directory says beyond the shape.
struct Summary {
    classes: Vec<ClassSummary>,
    tensors: usize,
    weight_bytes: u64,
    parameters: u64,
    tokenizer: TokenizerSummary,
    /// Tensors outside the main model: a draft block.
    support: usize,
}

struct ClassSummary {
    name: String,
    tensors: usize,
    bytes: u64,
    /// Type names and how many tensors have them.
    types: BTreeMap<&'static str, usize>,
}

struct TokenizerSummary {
    model: String,
    pre: String,
    tokens: usize,
    merges: usize,
}

impl Summary {
    fn of(gguf: &Gguf, shape: &Shape) -> anyhow::Result<Self> {
        let by_name: BTreeMap<&str, &ds4_gguf::TensorInfo> =
            gguf.tensors().iter().map(|info| (&*info.name, info)).collect();
        let mut classes: Vec<ClassSummary> = Vec::new();
        let specs = tensor_specs(shape);
        for spec in &specs {
            let Some(info) = by_name.get(spec.name.as_str()) else { continue };
            let name = format!("{:?}", spec.class);
            let at = classes.iter().position(|class| class.name == name).unwrap_or_else(|| {
                classes.push(ClassSummary { name, tensors: 0, bytes: 0, types: BTreeMap::new() });
                classes.len() - 1
            });
            let class = &mut classes[at];
            class.tensors += 1;
            class.bytes += info.bytes;
            *class.types.entry(info.dtype.name()).or_default() += 1;
        }
        Ok(Self {
            tensors: gguf.tensors().len(),
            weight_bytes: gguf.tensors().iter().map(|info| info.bytes).sum(),
            parameters: gguf.tensors().iter().filter_map(|info| info.dims.elements()).sum(),
            support: gguf.tensors().len().saturating_sub(specs.len()),
            tokenizer: TokenizerSummary::of(gguf.metadata())?,
            classes,
        })
    }

    fn text(&self, gguf: &Gguf, s: &Shape) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<13} {value}");
        };
        line("file", format!("{} ({}, {} bytes)", gguf.name(), size(gguf.file_bytes()), gguf.file_bytes()));
        line("architecture", "deepseek4".to_owned());
        line("name", s.name.clone());
        line("parameters", format!("{:.2} billion in {} tensors", self.parameters as f64 / 1e9, self.tensors));
        line("layers", format!("{} ({})", s.n_layer, layer_kinds(s)));
        line("width", format!("{}, vocabulary {}, context {}", s.n_embd, s.n_vocab, s.context));
        line(
            "attention",
            format!(
                "{} heads of {} ({} rotated), query rank {}, output {} groups of rank {}, window {}",
                s.n_head, s.head_dim, s.n_rot, s.q_lora_dim, s.n_out_group, s.out_lora_dim, s.window
            ),
        );
        line("indexer", format!("{} heads of {}, top {}", s.n_index_head, s.index_dim, s.index_top_k));
        line(
            "experts",
            format!(
                "{} of {} and 1 shared, width {}, {} hash-routed layers",
                s.n_expert_used, s.n_expert, s.ff_dim, s.n_hash_layer
            ),
        );
        let t = &self.tokenizer;
        line("tokenizer", format!("{} ({}), {} tokens, {} merges", t.model, t.pre, t.tokens, t.merges));
        line(
            "support",
            if self.support == 0 {
                "none".to_owned()
            } else {
                format!("{} tensors beyond the main model", self.support)
            },
        );
        line("weights", format!("{} bytes", self.weight_bytes));
        for class in &self.classes {
            let types: Vec<String> = class.types.iter().map(|(name, n)| format!("{name} x{n}")).collect();
            let _ = writeln!(out, "  {:<15} {:>10}  {}", class.name, size(class.bytes), types.join(", "));
        }
        out
    }

    fn json(&self, gguf: &Gguf, s: &Shape) -> Value {
        let classes: serde_json::Map<String, Value> = self
            .classes
            .iter()
            .map(|c| (c.name.clone(), json!({"tensors": c.tensors, "bytes": c.bytes, "types": c.types})))
            .collect();
        let t = &self.tokenizer;
        json!({
            "file": gguf.name(),
            "file_bytes": gguf.file_bytes(),
            "architecture": "deepseek4",
            "name": s.name,
            "parameters": self.parameters,
            "tensors": self.tensors,
            "support_tensors": self.support,
            "weight_bytes": self.weight_bytes,
            "layers": s.n_layer,
            "compress_ratios": s.ratios,
            "hash_layers": s.n_hash_layer,
            "embedding_length": s.n_embd,
            "vocab": s.n_vocab,
            "context": s.context,
            "heads": s.n_head,
            "head_dim": s.head_dim,
            "rotated": s.n_rot,
            "query_rank": s.q_lora_dim,
            "output_groups": s.n_out_group,
            "output_rank": s.out_lora_dim,
            "window": s.window,
            "indexer": {"heads": s.n_index_head, "dim": s.index_dim, "top_k": s.index_top_k},
            "experts": s.n_expert,
            "experts_used": s.n_expert_used,
            "expert_width": s.ff_dim,
            "classes": classes,
            "tokenizer": {"model": t.model, "pre": t.pre, "tokens": t.tokens, "merges": t.merges},
        })
    }
}

impl TokenizerSummary {
    fn of(metadata: &Metadata) -> anyhow::Result<Self> {
        Ok(Self {
            model: metadata.str("tokenizer.ggml.model")?.to_owned(),
            pre: metadata.str("tokenizer.ggml.pre")?.to_owned(),
            tokens: metadata.strings("tokenizer.ggml.tokens")?.len(),
            merges: metadata.strings("tokenizer.ggml.merges")?.len(),
        })
    }
}

/// How many layers compress how much, such as `2 window only, 21 ratio 4`.
fn layer_kinds(s: &Shape) -> String {
    let mut kinds: BTreeMap<u32, usize> = BTreeMap::new();
    for &ratio in &s.ratios {
        *kinds.entry(ratio).or_default() += 1;
    }
    let named = |(ratio, n): (&u32, &usize)| match ratio {
        0 => format!("{n} window only"),
        ratio => format!("{n} ratio {ratio}"),
    };
    kinds.iter().map(named).collect::<Vec<_>>().join(", ")
}
