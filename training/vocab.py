"""Prunes the published tokenizer to the miniature's vocabulary: `python training/vocab.py`.

Writes `training/tokenizer.json` from `models/tokenizer.json.gz` and a sample of the generators, then compares both
tokenizers on a fresh sample. Needs the `tokenizers` package. The sample's pool of words (`pool.py`) comes from the present
`training/tokenizer.json`: the same file and the same generators give the same result, a new vocabulary needs new training.
"""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer

import words as word_lists
from dialogues import make, make_retrieval

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "models" / "tokenizer.json.gz"
TARGET = HERE / "tokenizer.json"
# Documents in the sample, and the greatest size: rarer tokens are left to their parts until the vocabulary fits.
DOCUMENTS, LARGEST = 16000, 3900
# Low-ranked merges kept whether they occur or not, and punctuation runs of the first so many merges.
ENGLISH_MERGES, PUNCTUATION_MERGES = 900, 2500
# Added tokens kept: the three controls and the protocol range, without its two place holders.
PROTOCOL = {0, 1, 2, *range(128800, 128847)} - {128823, 128824}


def sample(first: int, count: int) -> list:
    """Training documents of the usual sizes."""
    texts = [make(seed, 4096 if seed % 40 == 0 else 512 if seed % 4 else 1024) for seed in range(first, first + count)]
    return texts + [make_retrieval(seed, 2000) for seed in range(first, first + count // 50)]


def keep_tokens(model: dict, used: Counter, rare: int) -> set:
    """Base token texts to keep, closed under the merges that build them; `rare` is the least count that is kept."""
    parts = {left + right: (left, right) for left, right in (merge.split(" ") for merge in model["merges"])}
    merges = list(parts)
    ascii_merges = [text for text in merges if text.isascii() or text.startswith("Ġ") and text[1:].isascii()]
    words = [text for text in ascii_merges if text.lstrip("Ġ").isalpha()]
    wanted = {text for text, count in used.items() if count >= rare}
    wanted.update(words[:ENGLISH_MERGES])
    for name, words_ in vars(word_lists).items():
        if name.isupper() and isinstance(words_, list):
            wanted.update("Ġ" + word for word in words_ if isinstance(word, str))
    wanted.update(
        text
        for text in merges[:PUNCTUATION_MERGES]
        if re.fullmatch(r"[ĠĊ]?[!-/:-@\[-`{-~]{2}Ċ?|Ġ[!-~]|Ċ+|Ġ{2,8}", text)
    )
    wanted.update(f"{number:02d}" for number in range(100))
    wanted = {text for text in wanted if not re.fullmatch(r"\d{3,}", text)}
    kept = {text for text in model["vocab"] if len(text) == 1}
    stack = list(wanted)
    while stack:
        text = stack.pop()
        if text not in kept and text in model["vocab"]:
            kept.add(text)
            stack += parts.get(text, ())
    return kept


def prune(published: dict, used: Counter) -> dict:
    """The pruned tokenizer file: ids dense, in the published order."""
    model = published["model"]
    added = [token for token in published["added_tokens"] if token["id"] in PROTOCOL]
    controls = {token["content"] for token in added}
    for rare in range(2, 10_000):
        kept = keep_tokens(model, used, rare) | (controls & set(model["vocab"]))
        if len(kept | controls) <= LARGEST:
            break
    base = sorted(kept, key=model["vocab"].get)
    vocab = {text: i for i, text in enumerate(base)}
    merges = [m for m in model["merges"] if all(part in vocab for part in (*m.split(" "), m.replace(" ", "")))]
    renumbered = []
    for token in sorted(added, key=lambda token: token["id"]):
        place = vocab.get(token["content"], len(vocab) + sum(t["content"] not in vocab for t in renumbered))
        renumbered.append({**token, "id": place})
    return {**published, "added_tokens": renumbered, "model": {**model, "vocab": vocab, "merges": merges}}


def compare(full: Tokenizer, small: Tokenizer, texts: list) -> tuple:
    """(tokens of the small one, of the full one, documents that differ beyond long numbers)."""
    differing = 0
    sizes = [0, 0]
    lost: Counter = Counter()
    for text in texts:
        a, b = full.encode(text, add_special_tokens=False).tokens, small.encode(text, add_special_tokens=False).tokens
        sizes[0] += len(b)
        sizes[1] += len(a)
        plain = [token for token in a if not re.fullmatch(r"\d+", token)]
        other = [token for token in b if not re.fullmatch(r"\d+", token)]
        missing = Counter(plain) - Counter(other)
        lost.update(missing)
        differing += plain != other
        assert small.decode(small.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text
    return sizes[0], sizes[1], differing, lost


def main() -> None:
    """Writes the file and prints what was measured."""
    published = json.loads(gzip.decompress(SOURCE.read_bytes()))
    full = Tokenizer.from_str(json.dumps(published))
    used: Counter = Counter()
    for encoding in full.encode_batch(sample(0, DOCUMENTS), add_special_tokens=False):
        used.update(encoding.tokens)
    pruned = prune(published, used)
    TARGET.write_text(json.dumps(pruned, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    small = Tokenizer.from_file(str(TARGET))
    fresh = sample(10_000_000, 400)
    tokens, before, differing, lost = compare(full, small, fresh)
    print(f"{small.get_vocab_size(True)} tokens of {len(used)} used, {TARGET.stat().st_size} bytes")
    print(f"fresh sample: {tokens} tokens, {before} with the full vocabulary; {differing} of {len(fresh)} texts differ")
    print(f"tokens lost to their parts: {sum(lost.values())}, most often {lost.most_common(8)}")
    print(f"{sum(map(len, fresh)) / tokens:.3f} characters in a token")


if __name__ == "__main__":
    main()
