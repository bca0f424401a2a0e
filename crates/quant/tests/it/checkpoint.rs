//! A small checkpoint with known values. Decodes its formats on its own, by the definition of the formats.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ds4_quant::{Options, Plan, Recipe, Target, Writer};
use half::{bf16, f16};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const VOCAB: u64 = 300;
pub(crate) const WIDTH: u64 = 256;
pub(crate) const EXPERTS: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    F16,
    Bf16,
    F8,
    Fp4(&'static str),
}

#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Checkpoint {
    pub(crate) folder: TempDir,
    pub(crate) tensors: BTreeMap<String, Stored>,
    /// What the weights stand for.
    pub(crate) values: BTreeMap<String, Vec<f32>>,
    pub(crate) config: Value,
    state: u64,
}

impl Checkpoint {
    /// Three layers of all kinds and a draft block. `experts` is the format of the routed experts.
    pub(crate) fn new(experts: Format) -> Self {
        let config = json!({
            "hidden_size": WIDTH, "num_hidden_layers": 3, "compress_ratios": [0, 4, 128, 0], "num_hash_layers": 1,
            "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 128, "qk_rope_head_dim": 64,
            "q_lora_rank": 128, "o_groups": 2, "o_lora_rank": 64, "n_routed_experts": EXPERTS,
            "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 256, "hc_mult": 4,
            "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "sliding_window": 128, "index_n_heads": 2,
            "index_head_dim": 128, "index_topk": 64, "swiglu_limit": 10.0, "routed_scaling_factor": 1.5,
            "scoring_func": "sqrtsoftplus", "norm_topk_prob": true, "rope_theta": 10000,
            "compress_rope_theta": 160_000, "rope_scaling": {"type": "yarn", "factor": 16,
            "original_max_position_embeddings": 65536, "beta_fast": 32, "beta_slow": 1}, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 4096, "num_nextn_predict_layers": 1, "bos_token_id": 0, "eos_token_id": 1,
            "vocab_size": VOCAB,
        });
        let folder = tempfile::tempdir().expect("a folder");
        let mut c = Self { folder, tensors: BTreeMap::new(), values: BTreeMap::new(), config, state: 1 };
        c.add("embed.weight", &[VOCAB, WIDTH], Format::Bf16);
        c.add("head.weight", &[VOCAB, WIDTH], Format::F16);
        c.add("norm.weight", &[WIDTH], Format::Bf16);
        c.streams("hc_head", 4, 1);
        for (layer, ratio) in [(0, 0), (1, 4), (2, 128)] {
            c.layer(&format!("layers.{layer}."), ratio, layer == 0, experts);
        }
        c.layer("mtp.0.", 0, false, experts);
        for name in ["e_proj", "h_proj"] {
            c.add(&format!("mtp.0.{name}.weight"), &[WIDTH, WIDTH], Format::F8);
        }
        for name in ["enorm", "hnorm", "norm"] {
            c.add(&format!("mtp.0.{name}.weight"), &[WIDTH], Format::F32);
        }
        c.streams("mtp.0.hc_head", 4, 1);
        c
    }

    fn streams(&mut self, name: &str, rows: u64, scales: u64) {
        self.add(&format!("{name}_fn"), &[rows, 4 * WIDTH], Format::F32);
        self.add(&format!("{name}_base"), &[rows], Format::F32);
        self.add(&format!("{name}_scale"), &[scales], Format::F32);
    }

    fn layer(&mut self, at: &str, ratio: u64, hashed: bool, experts: Format) {
        self.streams(&format!("{at}hc_attn"), 24, 3);
        self.streams(&format!("{at}hc_ffn"), 24, 3);
        for (name, shape) in [
            ("wq_a", [128, WIDTH]),
            ("wq_b", [512, 128]),
            ("wkv", [128, WIDTH]),
            ("wo_a", [128, 256]),
            ("wo_b", [WIDTH, 128]),
        ] {
            self.add(&format!("{at}attn.{name}.weight"), &shape, Format::F8);
        }
        for (name, n) in [("attn_norm", WIDTH), ("ffn_norm", WIDTH), ("attn.q_norm", 128), ("attn.kv_norm", 128)] {
            self.add(&format!("{at}{name}.weight"), &[n], Format::Bf16);
        }
        self.add(&format!("{at}attn.attn_sink"), &[4], Format::F32);
        if ratio != 0 {
            self.compressor(&format!("{at}attn.compressor"), ratio, 128);
        }
        if ratio == 4 {
            self.add(&format!("{at}attn.indexer.wq_b.weight"), &[256, 128], Format::F8);
            self.add(&format!("{at}attn.indexer.weights_proj.weight"), &[2, WIDTH], Format::Bf16);
            self.compressor(&format!("{at}attn.indexer.compressor"), ratio, 128);
        }
        self.add(&format!("{at}ffn.gate.weight"), &[EXPERTS, WIDTH], Format::F16);
        if hashed {
            self.table(&format!("{at}ffn.gate.tid2eid"), 8);
        } else {
            self.add(&format!("{at}ffn.gate.bias"), &[EXPERTS], Format::F32);
        }
        for matrix in ["w1", "w2", "w3"] {
            self.add(&format!("{at}ffn.shared_experts.{matrix}.weight"), &[256, 256], Format::F8);
            for e in 0..EXPERTS {
                self.add(&format!("{at}ffn.experts.{e}.{matrix}.weight"), &[256, 256], experts);
            }
        }
    }

    fn compressor(&mut self, at: &str, ratio: u64, width: u64) {
        let w = if ratio == 4 { 2 * width } else { width };
        for name in ["wkv", "wgate"] {
            self.add(&format!("{at}.{name}.weight"), &[w, WIDTH], Format::Bf16);
        }
        self.add(&format!("{at}.ape"), &[ratio, w], Format::F32);
        self.add(&format!("{at}.norm.weight"), &[width], Format::Bf16);
    }

    /// Expert ids as I64 (8 bytes) or I32 (4).
    pub(crate) fn table(&mut self, name: &str, width: usize) {
        let ids: Vec<u64> = (0..2 * VOCAB).map(|_| self.random() % EXPERTS).collect();
        let bytes = ids.iter().flat_map(|id| id.to_le_bytes()[..width].to_vec()).collect();
        self.values.insert(name.to_owned(), ids.iter().map(|&id| id as f32).collect());
        let dtype = if width == 8 { "I64" } else { "I32" };
        self.tensors.insert(name.to_owned(), Stored { dtype: dtype.to_owned(), shape: vec![VOCAB, 2], bytes });
    }

    fn add(&mut self, name: &str, shape: &[u64], format: Format) {
        let n: u64 = shape.iter().product();
        match format {
            Format::F32 => self.plain(name, shape, "F32", |x| (x.to_le_bytes().to_vec(), x)),
            Format::F16 => {
                self.plain(name, shape, "F16", |x| {
                    (f16::from_f32(x).to_le_bytes().to_vec(), f16::from_f32(x).to_f32())
                });
            }
            Format::Bf16 => self
                .plain(name, shape, "BF16", |x| (bf16::from_f32(x).to_le_bytes().to_vec(), bf16::from_f32(x).to_f32())),
            Format::F8 => self.f8(name, [shape[0], shape[1]]),
            Format::Fp4(dtype) => self.fp4(name, [shape[0], shape[1]], dtype),
        }
        assert_eq!(self.values[name].len() as u64, n);
    }

    fn plain(&mut self, name: &str, shape: &[u64], dtype: &str, write: impl Fn(f32) -> (Vec<u8>, f32)) {
        let n: u64 = shape.iter().product();
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let (b, value) = write(self.number());
            bytes.extend(b);
            values.push(value);
        }
        self.put(name, dtype, shape, bytes, values);
    }

    fn f8(&mut self, name: &str, [rows, columns]: [u64; 2]) {
        let tiles = columns.div_ceil(128);
        let scales: Vec<u8> = (0..rows.div_ceil(128) * tiles).map(|_| 116 + (self.random() % 4) as u8).collect();
        let codes: Vec<u8> = (0..rows * columns)
            .map(|_| self.random() as u8)
            .map(|code| if code & 127 == 127 { 0 } else { code })
            .collect();
        let value = |i: u64| {
            let (code, scale) = (codes[i as usize], scales[(i / columns / 128 * tiles + i % columns / 128) as usize]);
            let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
            let magnitude = match exponent {
                0 => mantissa / 8.0 * f32::powi(2.0, -6),
                _ => (1.0 + mantissa / 8.0) * f32::powi(2.0, exponent - 7),
            };
            let sign = if code >= 128 { -1.0 } else { 1.0 };
            sign * magnitude * f32::powi(2.0, i32::from(scale) - 127)
        };
        let values = (0..rows * columns).map(value).collect();
        self.put_scale(name, &[rows.div_ceil(128), tiles], scales.clone());
        self.put(name, "F8_E4M3", &[rows, columns], codes, values);
    }

    fn fp4(&mut self, name: &str, [rows, columns]: [u64; 2], dtype: &str) {
        const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let scales: Vec<u8> = (0..rows * columns / 32).map(|_| 117 + (self.random() % 4) as u8).collect();
        let codes: Vec<u8> = (0..rows * columns / 2).map(|_| self.random() as u8).collect();
        let value = |i: usize| {
            let code = if i.is_multiple_of(2) { codes[i / 2] & 15 } else { codes[i / 2] >> 4 };
            let sign = if code >= 8 { -1.0 } else { 1.0 };
            sign * MAGNITUDES[usize::from(code & 7)] * f32::powi(2.0, i32::from(scales[i / 32]) - 127)
        };
        let values = (0..(rows * columns) as usize).map(value).collect();
        let shape = if dtype == "F4" { [rows, columns] } else { [rows, columns / 2] };
        self.put_scale(name, &[rows, columns / 32], scales.clone());
        self.put(name, dtype, &shape, codes, values);
    }

    fn put(&mut self, name: &str, dtype: &str, shape: &[u64], bytes: Vec<u8>, values: Vec<f32>) {
        self.tensors.insert(name.to_owned(), Stored { dtype: dtype.to_owned(), shape: shape.to_vec(), bytes });
        self.values.insert(name.to_owned(), values);
    }

    fn put_scale(&mut self, name: &str, shape: &[u64], bytes: Vec<u8>) {
        let name = name.replace(".weight", ".scale");
        self.tensors.insert(name, Stored { dtype: "F8_E8M0".to_owned(), shape: shape.to_vec(), bytes });
    }

    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }

    /// About normal, with the spread of weights.
    fn number(&mut self) -> f32 {
        let sum: u64 = (0..4).map(|_| self.random() % 65536).sum();
        (sum as f32 / 65536.0 - 2.0) * 0.03
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("hf").join(name)
    }

    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Stored {
        self.tensors.get_mut(name).expect(name)
    }

    /// Writes two shards, the index, the configuration and a tokenizer.
    pub(crate) fn save(&self) {
        fs::create_dir_all(self.path("")).expect("a folder");
        let names: Vec<&String> = self.tensors.keys().collect();
        let mut map = serde_json::Map::new();
        for (i, names) in names.chunks(names.len().div_ceil(2)).enumerate() {
            let file = format!("model-0000{}-of-00002.safetensors", i + 1);
            fs::write(self.path(&file), shard(names.iter().map(|name| (name.as_str(), &self.tensors[*name]))))
                .expect("written");
            map.extend(names.iter().map(|&name| (name.clone(), json!(file))));
        }
        fs::write(self.path("model.safetensors.index.json"), json!({"metadata": {}, "weight_map": map}).to_string())
            .expect("written");
        fs::write(self.path("config.json"), self.config.to_string()).expect("written");
        let vocab: serde_json::Map<_, _> = (2..VOCAB).map(|id| (format!("t{id}"), json!(id))).collect();
        let added = json!([
            {"id": 0, "content": "<bos>", "special": true},
            {"id": 1, "content": "<eos>", "special": true},
            {"id": 2, "content": "t2", "special": false},
        ]);
        let tokenizer = json!({"added_tokens": added, "model": {"vocab": vocab, "merges": ["t3 t4", ["t5", "t6"]]}});
        fs::write(self.path("tokenizer.json"), tokenizer.to_string()).expect("written");
    }

    pub(crate) fn plan(&self, options: &Options) -> ds4_quant::Result<Plan> {
        Plan::new(&self.path(""), options)
    }

    /// Converts to a new file and reads it.
    pub(crate) fn convert(&self, options: &Options) -> ds4_quant::Result<Vec<u8>> {
        let out = self.out("out.gguf");
        write(&self.plan(options)?, &out)?;
        Ok(fs::read(&out).expect("a file"))
    }
}

pub(crate) fn write(plan: &Plan, out: &Path) -> ds4_quant::Result<()> {
    Writer::open(plan, out)?.run(2, &mut |_, _| std::ops::ControlFlow::Continue(()))
}

pub(crate) fn options(target: Target) -> Options {
    Options { recipe: Recipe::new(target), mtp: false, name: None, imatrix: None, strict: false }
}

/// One safetensors file.
pub(crate) fn shard<'a>(tensors: impl Iterator<Item = (&'a str, &'a Stored)>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, t) in tensors {
        let offsets = [data.len(), data.len() + t.bytes.len()];
        header.insert(name.to_owned(), json!({"dtype": t.dtype, "shape": t.shape, "data_offsets": offsets}));
        data.extend(&t.bytes);
    }
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}
