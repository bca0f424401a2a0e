"""The large space of names and values that training copies and matches: too large and too irregular to be memorised.

Only training draws from it. A text that its hash holds out (`held`) is never returned as a whole; it may be a part of a
longer one, so that its tokens are known.
"""

import json
import random
import zlib
from functools import lru_cache
from pathlib import Path

_VOCAB = json.loads((Path(__file__).resolve().parent / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
# Lowercase alphabetic tokens without their leading space (in the file: Ġ), and those of three and more letters that stand
# at the start of a word.
_BARE = {text.lstrip("Ġ") for text in _VOCAB}
PIECES = sorted(text for text in _BARE if text.isascii() and text.isalpha() and text.islower())
REAL = sorted({text for text in PIECES if len(text) > 2 and "Ġ" + text in _VOCAB})
_KNOWN = {t.replace("Ġ", " ") for t in _VOCAB}

_ONSETS = """b c d f g h j k l m n p q r s t v w x y z bl br ch cl cr dr dw fl fr gl gn gr kl kn kr kw ll ph pl pr qu rh sc
sch sh sk sl sm sn sp spr squ st str sv sw th thr tr ts tw v vl vr wh wr zh zw""".split() + [""]  # fmt: skip
_VOWELS = "a e i o u a e i o u y ai au ea ee ei eo ia ie io oa oo ou ua ue uo aa".split()
_CODAS = ["", "", "", "", *"""b ck d f g k l ll lk lm lt m mp n nd ng nk nt p pt q r rb rd rk rm rn rt s sh sk ss st t th
tch ts tz v x z""".split()]  # fmt: skip
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"


def held(text: str, share: int = 6) -> bool:
    """True when a hash of the text puts it in the held-out part (one of `share`)."""
    return zlib.crc32(b"ds4-mini " + text.encode()) % share == 0


def _choice(rng: random.Random, items) -> str:
    return items[int(rng.random() * len(items))]


def _syllables(rng: random.Random) -> str:
    count = _choice(rng, (1, 2, 2, 2, 3, 3, 4, 5))
    return "".join(
        _choice(rng, _ONSETS) + _choice(rng, _VOWELS) + (_choice(rng, _CODAS) if rng.random() < 0.4 else "")
        for _ in range(count)
    )


def word(rng: random.Random) -> str:
    """A lowercase word of at least two letters: syllables, random letters, joined tokens or a real word."""
    while True:
        style = rng.random()
        if style < 0.28:
            text = _syllables(rng)
        elif style < 0.40:
            text = "".join(_choice(rng, _LETTERS) for _ in range(3 + int(rng.random() * 8)))
        elif style < 0.58:
            text = "".join(_choice(rng, PIECES) for _ in range(_choice(rng, (1, 2, 2, 2, 3, 3, 4))))
        elif style < 0.70:
            text = _choice(rng, REAL) + (_choice(rng, PIECES) if rng.random() < 0.7 else _syllables(rng))
        else:
            text = _choice(rng, REAL)
        if 2 <= len(text) <= 17 and not held(text):
            return text


def real(rng: random.Random) -> str:
    """A word of the vocabulary, held out or not: for copied texts, where also held-out words may stand."""
    return _choice(rng, REAL)


def join(rng: random.Random, parts: list) -> str:
    """Parts as snake_case (most often), camelCase, kebab-case or dotted."""
    style = rng.random()
    if style < 0.55:
        return "_".join(parts)
    if style < 0.75:
        return parts[0] + "".join(part.capitalize() for part in parts[1:])
    return ("-" if style < 0.9 else ".").join(parts)


def name(rng: random.Random) -> str:
    """An identifier that starts with a small letter: one to three words, sometimes digits."""
    while True:
        parts = [word(rng) for _ in range(_choice(rng, (1, 1, 1, 1, 1, 2, 2, 3)))]
        if rng.random() < 0.15:
            parts.append(str(rng.randint(0, 999)))
        text = join(rng, parts) if rng.random() < 0.9 else "".join(parts)
        if not held(text):
            return text


def label(rng: random.Random) -> str:
    """A thing in plain words: one word, sometimes two or three."""
    while True:
        text = " ".join(word(rng) for _ in range(_choice(rng, (1, 1, 1, 1, 2, 2, 3))))
        if not held(text):
            return text


def phrase(rng: random.Random, most: int = 6) -> str:
    """Two to `most` words."""
    text = " ".join(word(rng) for _ in range(rng.randint(2, most)))
    return text.capitalize() if rng.random() < 0.25 else text


def _code(rng: random.Random) -> str:
    letters = _LETTERS + _LETTERS.upper() + _DIGITS * 2
    return "".join(_choice(rng, letters) for _ in range(rng.randint(3, 9)))


def value(rng: random.Random) -> str:
    """A string value of any look without a space at its ends and without commas, semicolons or a final mark."""
    while True:
        style = rng.random()
        if style < 0.42:
            text = word(rng)
        elif style < 0.5:
            text = word(rng).capitalize()
        elif style < 0.62:
            text = name(rng)
        elif style < 0.69:
            text = _code(rng)
        elif style < 0.75:
            text = str(rng.randint(0, 99999))
        elif style < 0.80:
            text = f"{_choice(rng, _LETTERS).upper()}{_choice(rng, _LETTERS).upper()}-{rng.randint(1, 999)}"
        elif style < 0.86:
            folder = "/".join(word(rng) for _ in range(rng.randint(0, 2)))
            text = f"{folder}/{word(rng)}.{word(rng)[:3]}".lstrip("/")
        elif style < 0.89:
            text = f"{word(rng)}@{word(rng)}.com"
        else:
            text = phrase(rng)
        if not held(text):
            return text


@lru_cache(maxsize=65536)
def tokens(piece: str) -> int:
    """About how many tokens a run of letters with an optional leading space takes."""
    return 1 if piece in _KNOWN else 1 + 2 * len(piece) // 5
