//! Checkpoints that cannot be converted: one clear line, nothing under the final name.

use std::fs;

use ds4_gguf::DType;
use ds4_quant::{Family, Target};
use serde_json::json;

use crate::checkpoint::{Checkpoint, Format, options};

/// What happens to a saved checkpoint.
type Damage = fn(&Checkpoint);

/// What is wrong, and what the message has to say.
type Case<'a> = (&'a str, Box<dyn Fn(&mut Checkpoint)>, &'a str);

fn refuses(cases: Vec<Case<'_>>, target: Target) {
    for (what, damage, says) in cases {
        let mut c = Checkpoint::new(Format::Fp4("I8"));
        damage(&mut c);
        c.save();
        let message = c.convert(&options(target)).err().unwrap_or_else(|| panic!("{what}: accepted")).to_string();
        assert!(message.contains(says) && !message.contains('\n'), "{what}: {message}, expected {says}");
        let left = fs::read_dir(c.folder.path()).expect("a folder").count();
        assert_eq!(left, 1, "{what}: nothing but the checkpoint");
    }
}

fn case<'a>(what: &'a str, says: &'a str, damage: impl Fn(&mut Checkpoint) + 'static) -> Case<'a> {
    (what, Box::new(damage), says)
}

#[test]
fn tensors_that_are_missing_or_of_another_form() {
    refuses(
        vec![
            case("a tensor", "tensor norm.weight: missing, expected [256]", |c| drop(c.tensors.remove("norm.weight"))),
            case("an expert", "tensor layers.1.ffn.experts.2.w3.weight: missing", |c| {
                c.tensors.remove("layers.1.ffn.experts.2.w3.weight");
            }),
            case("a scale", "tensor layers.0.attn.wkv.scale: missing, expected [1, 2] of F8_E8M0", |c| {
                c.tensors.remove("layers.0.attn.wkv.scale");
            }),
            case("an expert's scale", "tensor layers.0.ffn.experts.0.w1.scale: missing, expected [256, 8]", |c| {
                c.tensors.remove("layers.0.ffn.experts.0.w1.scale");
            }),
            case("a table", "tensor layers.0.ffn.gate.tid2eid: missing", |c| {
                c.tensors.remove("layers.0.ffn.gate.tid2eid");
            }),
            case("shape", "tensor head.weight: found [256, 300] F16, expected [300, 256]", |c| {
                c.tensor("head.weight").shape.reverse();
            }),
            case("type", "tensor embed.weight: found I32, expected F32, F16, BF16", |c| {
                let t = c.tensor("embed.weight");
                (t.dtype, t.shape) = ("I32".to_owned(), vec![300, 128]);
            }),
            case("unknown type", "tensor embed.weight: found an unknown type", |c| {
                c.tensor("embed.weight").dtype = "F8_E5M2".to_owned();
            }),
            case("type of a scale", "tensor layers.0.attn.wkv.scale: found [1, 2] U8, expected [1, 2] F8_E8M0", |c| {
                c.tensor("layers.0.attn.wkv.scale").dtype = "U8".to_owned();
            }),
            case("shape of a scale", "found [2, 1] F8_E8M0, expected [1, 2] F8_E8M0", |c| {
                c.tensor("layers.0.attn.wkv.scale").shape.reverse();
            }),
            case("bytes", "tensor norm.weight: found 510 bytes for [256] of BF16, expected 512", |c| {
                c.tensor("norm.weight").bytes.truncate(510);
            }),
        ],
        Target::Q4,
    );
}

#[test]
fn numbers_that_no_file_should_hold() {
    for target in [Target::Q2, Target::Mxfp4] {
        refuses(
            vec![
                case("NaN", "tensor embed.weight: element 1000 is NaN, expected a finite number", |c| {
                    c.tensor("embed.weight").bytes[2000..2002].copy_from_slice(&[0xc0, 0x7f]);
                }),
                case("infinity", "tensor layers.2.hc_ffn_fn: element 5 is -inf", |c| {
                    c.tensor("layers.2.hc_ffn_fn").bytes[20..24].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
                }),
                case("NaN of F8", "tensor layers.1.attn.wo_b.weight: element 130 is NaN", |c| {
                    c.tensor("layers.1.attn.wo_b.weight").bytes[130] = 0xff;
                }),
                case(
                    "scale of F8",
                    "tensor layers.1.attn.wo_b.scale: element 1 is NaN, expected a power of two",
                    |c| {
                        c.tensor("layers.1.attn.wo_b.scale").bytes[1] = 255;
                    },
                ),
                case("scale of FP4", "tensor layers.2.ffn.experts.1.w2.scale: element 77 is NaN", |c| {
                    c.tensor("layers.2.ffn.experts.1.w2.scale").bytes[77] = 255;
                }),
                case("too large", "tensor head.weight: element 0 is 65520, expected at most 65504", |c| {
                    let t = c.tensor("head.weight");
                    (t.dtype, t.bytes) = ("F32".to_owned(), 65520_f32.to_le_bytes().repeat(300 * 256));
                }),
                case(
                    "expert id",
                    "tensor layers.0.ffn.gate.tid2eid: element 7 is 3, expected an expert, 0 to 2",
                    |c| {
                        c.tensor("layers.0.ffn.gate.tid2eid").bytes[56] = 3;
                    },
                ),
                case("negative id", "element 0 is -1, expected an expert", |c| {
                    c.tensor("layers.0.ffn.gate.tid2eid").bytes[..8].fill(255);
                }),
            ],
            target,
        );
    }
}

#[test]
fn configurations_that_describe_no_model() {
    for (key, value, says) in [
        ("hidden_size", json!(null), "config.json: key hidden_size: found null, expected a count"),
        ("hidden_size", json!("x"), "key hidden_size: found \"x\", expected a count"),
        ("hidden_size", json!(0), "deepseek4.embedding_length"),
        ("vocab_size", json!(4_000_000_000_u64), "deepseek4.vocab_size"),
        ("num_hidden_layers", json!(9), "key compress_ratios: found [0,4,128,0], expected at least 9 ratios"),
        ("compress_ratios", json!([0, 4, 7]), "deepseek4.attention.compress_ratios: found 7"),
        ("scoring_func", json!("softmax"), "key scoring_func: found \"softmax\", expected sqrtsoftplus"),
        ("norm_topk_prob", json!(false), "key norm_topk_prob: found false, expected true"),
        ("hc_mult", json!(2), "key hc_mult: found 2, expected 4"),
        ("rope_scaling", json!({"type": "linear"}), "key rope_scaling.type: found \"linear\", expected yarn"),
        ("rope_scaling", json!(null), "key rope_scaling: found null, expected an object"),
        ("rms_norm_eps", json!(-1), "layer_norm_rms_epsilon"),
        ("bos_token_id", json!(300), "key bos_token_id: found 300, expected an id below 300"),
        ("vocab_size", json!(299), "tensor embed.weight"),
    ] {
        let mut c = Checkpoint::new(Format::F16);
        c.config[key] = value;
        c.save();
        let message = c.convert(&options(Target::Q4)).err().unwrap_or_else(|| panic!("{key}")).to_string();
        assert!(message.contains(says) && !message.contains('\n'), "{message}, expected {says}");
    }
}

#[test]
fn files_that_are_missing_cut_or_no_json() {
    let shard = "model-00002-of-00002.safetensors";
    let cases: [(&str, Damage, &str); 10] = [
        (
            "no index",
            |c| fs::remove_file(c.path("model.safetensors.index.json")).unwrap(),
            "found no model.safetensors.index.json",
        ),
        (
            "no shard",
            |c| fs::remove_file(c.path("model-00002-of-00002.safetensors")).unwrap(),
            "00002.safetensors: No such file",
        ),
        ("no config", |c| fs::remove_file(c.path("config.json")).unwrap(), "config.json: No such file"),
        ("no tokenizer", |c| fs::remove_file(c.path("tokenizer.json")).unwrap(), "tokenizer.json: No such file"),
        ("index", |c| fs::write(c.path("model.safetensors.index.json"), "{").unwrap(), "index.json: JSON: found EOF"),
        (
            "config",
            |c| fs::write(c.path("config.json"), "[]").unwrap(),
            "config.json: key num_key_value_heads: found nothing",
        ),
        (
            "tokenizer",
            |c| fs::write(c.path("tokenizer.json"), "{}").unwrap(),
            "tokenizer.json: JSON: found missing field",
        ),
        (
            "a hole in the ids",
            |c| {
                let text = fs::read_to_string(c.path("tokenizer.json")).unwrap();
                fs::write(c.path("tokenizer.json"), text.replace("\"t77\":77,", "")).unwrap();
            },
            "id 77: found no token, expected one for every id below vocab_size 300",
        ),
        (
            "another folder",
            |c| {
                let text = fs::read_to_string(c.path("model.safetensors.index.json")).unwrap();
                fs::write(c.path("model.safetensors.index.json"), text.replace("model-00001", "../model-00001"))
                    .unwrap();
            },
            "expected the name of a file beside it",
        ),
        (
            "empty shard",
            |c| fs::write(c.path("model-00002-of-00002.safetensors"), "").unwrap(),
            "file: found 0 bytes, expected safetensors",
        ),
    ];
    for (what, damage, says) in cases {
        let c = Checkpoint::new(Format::F16);
        c.save();
        damage(&c);
        let message = c.convert(&options(Target::Q4)).err().unwrap_or_else(|| panic!("{what}")).to_string();
        // Windows' words for it.
        let message = message.replace("The system cannot find the file specified.", "No such file or directory");
        assert!(message.contains(says) && !message.contains('\n'), "{what}: {message}, expected {says}");
    }
    let c = Checkpoint::new(Format::F16);
    c.save();
    let whole = fs::read(c.path(shard)).expect("a shard");
    for length in [1, 7, 8, 100, 5000, whole.len() / 2, whole.len() - 1] {
        fs::write(c.path(shard), &whole[..length]).expect("written");
        let message = c.convert(&options(Target::Q4)).expect_err("refused").to_string();
        assert!(message.contains(shard), "cut at {length}: {message}");
    }
    fs::write(c.path(shard), [&whole[..], b"x"].concat()).expect("written");
    let message = c.convert(&options(Target::Q4)).expect_err("refused").to_string();
    assert!(message.contains("where its last tensor ends"), "{message}");
}

#[test]
fn headers_of_any_bytes_are_refused_without_a_panic() {
    let c = Checkpoint::new(Format::F16);
    c.save();
    let path = c.path("model-00001-of-00002.safetensors");
    let record = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &[0; 16]].concat();
    for (text, says) in [
        (
            r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#,
            "tensor a twice",
        ),
        (r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}"#, "bytes 16 to 0"),
        (r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,99]}}"#, "is it truncated?"),
        (r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}"#, "expected fewer elements"),
        (r#"{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}"#, "header"),
        ("[]", "header"),
        ("nonsense", "header"),
    ] {
        fs::write(&path, record(text)).expect("written");
        let message = c.plan(&options(Target::Q4)).err().expect(text).to_string();
        assert!(message.contains(says) && !message.contains('\n'), "{message}, expected {says}");
    }
    fs::write(&path, u64::MAX.to_le_bytes()).expect("written");
    assert!(c.plan(&options(Target::Q4)).err().expect("refused").to_string().contains("header: found a length of"));
}

#[test]
fn rows_that_are_not_whole_blocks() {
    let c = Checkpoint::new(Format::F16);
    c.save();
    let mut o = options(Target::Q4);
    o.recipe.families = vec![(Family::Attention, DType::Q4K)];
    let message = c.plan(&o).err().expect("refused").to_string();
    assert_eq!(message, "tensor blk.0.attn_q_b.weight: rows of 128, expected a multiple of 256 for Q4_K");
    o.recipe.families.clear();
    o.recipe.prefixes = vec![("blk.7.".to_owned(), DType::F16)];
    assert!(c.plan(&o).err().expect("refused").to_string().contains("nothing to be F16"));
}
