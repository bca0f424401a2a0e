//! Ids against the published tokenizer's.

use ds4_gguf::Gguf;
use ds4_text::Tokenizer;

use crate::{
    fixtures::{ids, json, path, rows, str, text},
    published::{TOKENIZER, unzipped},
};

#[test]
fn every_vector_encodes_as_published_in_both_modes_and_decodes() {
    let vectors = rows("tokenizer/vectors.jsonl");
    for row in &vectors {
        let text = str(row, "text");
        let expected = ids(&row["ids"]);
        let plain = row.get("ids_plain").map_or_else(|| expected.clone(), ids);
        assert_eq!(TOKENIZER.encode(text), expected, "{row}");
        assert_eq!(TOKENIZER.encode_plain(text), plain, "{row}");
        assert_eq!(TOKENIZER.decode(&expected), text.as_bytes(), "{row}");
        assert_eq!(TOKENIZER.decode(&plain), text.as_bytes(), "{row}");
        if let Some(hex) = row.get("bytes_hex") {
            assert_eq!(TOKENIZER.encode_bytes(&bytes(hex.as_str().unwrap())), expected, "{row}");
        }
    }
    assert_eq!(vectors.len(), 1197);
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn every_added_token_is_one_id_and_its_own_bytes() {
    let table = rows("tokenizer/added_tokens.jsonl");
    for row in &table {
        let id = row["id"].as_u64().unwrap() as u32;
        let text = str(row, "text");
        assert_eq!(TOKENIZER.encode(text), [id]);
        assert_eq!(TOKENIZER.token_bytes(id), text.as_bytes());
        assert!(TOKENIZER.is_added(id));
        assert!(TOKENIZER.encode_plain(text).iter().all(|&id| !TOKENIZER.is_added(id)), "{text}");
    }
    assert_eq!(table.len(), 1283);
    assert_eq!(TOKENIZER.n_vocab(), 129_280);
    assert_eq!(TOKENIZER.token_bytes(129_280), b"");
}

#[test]
fn the_control_tokens_have_their_published_ids() {
    let s = TOKENIZER.special();
    assert_eq!([s.bos, s.eos, s.user, s.assistant], [0, 1, 128_803, 128_804]);
    assert_eq!([s.think, s.think_end, s.dsml], [128_821, 128_822, 128_825]);
    let optional = [s.latest_reminder, s.action, s.query, s.authority, s.domain, s.title, s.read_url];
    let expected = [128_828, 128_829, 128_830, 128_831, 128_832, 128_836, 128_845];
    assert_eq!(optional, expected.map(Some));
}

#[test]
fn the_counts_of_the_captures_are_those_that_the_api_billed() {
    let counts = json("official-vectors/token_counts.json");
    let prompts = counts["prompts"].as_object().unwrap();
    for (name, count) in prompts {
        let user = text(&format!("official-vectors/prompts/{name}.txt"));
        assert_eq!(TOKENIZER.encode(&user).len() as u64, count["user_text_ids"].as_u64().unwrap(), "{name}");
        let rendered = format!("<｜begin▁of▁sentence｜><｜User｜>{user}<｜Assistant｜></think>");
        assert_eq!(TOKENIZER.encode(&rendered).len() as u64, count["rendered_ids"].as_u64().unwrap(), "{name}");
    }
    assert_eq!(prompts.len(), 5);
    for (name, count) in counts["rendered_prompts"].as_object().unwrap() {
        let rendered = text(&format!("official-vectors/{name}"));
        assert_eq!(TOKENIZER.encode(&rendered).len() as u64, count.as_u64().unwrap(), "{name}");
    }
    let novel = unzipped(path("bench/promessi_sposi.txt.gz"));
    assert_eq!(TOKENIZER.encode(&novel).len(), 417_059);
    assert_eq!(counts["bench"]["promessi_sposi.txt"]["published_tokenizer"], 417_059);
}

#[test]
fn the_small_models_tokenize_their_examples() {
    for name in ["tiny-a", "tiny-b", "tiny-c"] {
        let gguf = Gguf::open(&path(&format!("tiny/{name}.gguf"))).unwrap();
        let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
        assert_eq!(tokenizer.n_vocab(), 320);
        let fox = [260, 286, 108, 299, 283, 117, 114, 122, 113, 272, 123];
        assert_eq!(tokenizer.encode("the quick brown fox"), fox);
        let answer =
            [260, 274, 118, 122, 269, 35, 108, 118, 35, 52, 53, 54, 55, 56, 57, 58, 284, 261, 273, 306, 119, 49];
        assert_eq!(tokenizer.encode("the answer is 1234567 in the text."), answer);
        assert_eq!(tokenizer.encode("<think>｜DSML｜</think>"), [317, 319, 318]);
        assert_eq!(tokenizer.special().latest_reminder, None);
    }
}

/// A quadratic merge would take minutes here.
#[test]
fn long_pieces_are_merged_and_come_back() {
    for piece in ["a", " ", "=", "あ", "\u{301}", "\u{0}", "\n", "x"] {
        let long = piece.repeat(300_000);
        assert_eq!(TOKENIZER.decode(&TOKENIZER.encode(&long)), long.as_bytes());
    }
}
