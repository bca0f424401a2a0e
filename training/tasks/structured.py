"""JSON answers that follow a small schema, from facts told in a sentence."""

import json
import random

import pool
import words as w

from .base import Turn, listing

_dumps = json.JSONEncoder(ensure_ascii=False).encode


def _pools(rng: random.Random, split: str) -> tuple:
    """All fields of a person and of a thing as (name, JSON type, value, sentence part)."""
    name = rng.choice(w.PEOPLE) if rng.random() < 0.7 else w.nonsense(rng, split).capitalize()
    age, city = rng.randint(1, 99), rng.choice(w.CITIES)
    pet, food, color = rng.choice(w.ANIMALS), rng.choice(w.FOODS), rng.choice(w.COLORS)
    noun, code = rng.choice(w.NOUNS), w.nonsense(rng, split)
    price, size = rng.randint(1, 999), rng.randint(1, 99)
    items = rng.sample(w.NOUNS, rng.randint(2, 3))
    married = rng.random() < 0.5
    student = rng.random() < 0.5
    person = [
        ("name", "string", name, None),
        ("age", "integer", age, rng.choice((f"is {age} years old", f"is {age}", f"is {age} years of age"))),
        ("city", "string", city, rng.choice((f"lives in {city}", f"is from {city}"))),
        ("pet", "string", pet, f"has {w.article(pet)}"),
        ("food", "string", food, f"likes {food}"),
        ("color", "string", color, f"likes the color {color}"),
        ("items", "strings", items, f"has the items {listing(items)}"),
        ("married", "boolean", married, "is married" if married else "is not married"),
        ("student", "boolean", student, "is a student" if student else "is not a student"),
        ("code", "string", code, f"has the code {code}"),
    ]
    thing = [
        ("item", "string", noun, None),
        ("color", "string", color, f"is {color}"),
        ("price", "integer", price, f"costs {price}"),
        ("size", "integer", size, f"has size {size}"),
        ("code", "string", code, f"has the code {code}"),
        ("owner", "string", name, f"belongs to {name}"),
        ("city", "string", city, f"is in {city}"),
        ("new", "boolean", married, "is new" if married else "is not new"),
    ]
    return person, thing


def _facts(rng: random.Random, split: str) -> list:
    if split == "train" and rng.random() < 0.4:
        return _any_facts(rng)
    rows = _pools(rng, split)[rng.random() < 0.4]
    return [rows[0], *rng.sample(rows[1:], rng.randint(1, 3))]


def _any_fact(rng: random.Random, key: str, kind: str) -> tuple:
    if kind == "integer":
        found = rng.randint(0, 9999)
    elif kind == "strings":
        found = [pool.word(rng) for _ in range(rng.randint(2, 3))]
    else:
        found = pool.word(rng) if rng.random() < 0.6 else pool.name(rng)
    said = found if kind != "strings" else " ".join(found)
    return (key, kind, found, rng.choice(("has the {} {}", "has {} {}")).format(key, said))


def _any_facts(rng: random.Random) -> list:
    """Fields of any name; the first is the thing itself."""
    rows = [("item", "string", pool.word(rng), None)]
    names = {"item"}
    for _ in range(rng.randint(1, 4)):
        key = pool.word(rng) if rng.random() < 0.6 else pool.name(rng)
        if key not in names:
            names.add(key)
            rows.append(_any_fact(rng, key, rng.choice(("string", "string", "integer", "strings"))))
    return rows if len(rows) > 1 else _any_facts(rng)


def _schema(fields: list) -> dict:
    kinds = {"strings": {"type": "array", "items": {"type": "string"}}}
    properties = {name: kinds.get(kind, {"type": kind}) for name, kind, _, _ in fields}
    return {"type": "object", "properties": properties, "required": [field[0] for field in fields]}


_NAMES = "person record item data entry answer object".split()


def _sentence(rng: random.Random, fields: list, extra: list) -> str:
    subject = fields[0][2] if fields[0][0] == "name" else f"The {fields[0][2]}"
    parts = [field[3] for field in fields[1:] + extra]
    rng.shuffle(parts)
    if rng.random() < 0.5:
        return f"{subject} {listing(parts)}."
    pronoun = "It" if fields[0][0] == "item" else rng.choice(("He", "She"))
    return " ".join(f"{subject if i == 0 else pronoun} {part}." for i, part in enumerate(parts))


def _picked(rng: random.Random, split: str) -> tuple:
    """(wanted fields in answer order, the sentence that tells them and others)."""
    fields = _facts(rng, split)
    kept = fields[:1] + rng.sample(fields[1:], rng.randint(1, len(fields) - 1))
    sentence = _sentence(rng, kept, [field for field in fields if field not in kept])
    if rng.random() < 0.5:
        rng.shuffle(kept)
    return kept, sentence


def _thought(fields: list) -> str:
    return f"The fields are {listing([field[0] for field in fields])}."


def _answer(fields: list) -> str:
    return _dumps({field[0]: field[2] for field in fields})


def turn_plain(rng: random.Random, split: str) -> Turn:
    """The wanted form stands in the user's text."""
    fields, sentence = _picked(rng, split)
    names = [field[0] for field in fields]
    listed = rng.choice((", ".join(names), listing(names)))
    wording = rng.random()
    if wording < 0.4:
        ask = rng.choice((
            f"Answer with a JSON object with the fields {listed}.", f"Give me JSON with {listed}.",
            f"Write JSON with the keys {listed}.", f"Return a JSON object: {listed}.",
        ))  # fmt: skip
    elif wording < 0.7:
        ask = f"{rng.choice(('Use this JSON schema:', 'Answer in JSON. Schema:'))} {_dumps(_schema(fields))}"
    else:
        types = {field[0]: "array" if field[1] == "strings" else field[1] for field in fields}
        ask = f"{rng.choice(('JSON form:', 'Answer as JSON like this:', 'Format:'))} {_dumps(types)}"
    user = f"{sentence} {ask}" if rng.random() < 0.6 else f"{ask}\n{sentence}"
    answer = _answer(fields)
    return Turn(user, answer, _thought(fields), [answer], "json")


def turn_formatted(rng: random.Random, split: str) -> tuple:
    """A turn and the response format that fixes its fields (for `json_object` the user's text names them)."""
    if rng.random() < 0.2:
        return turn_plain(rng, split), {"type": "json_object"}
    fields, sentence = _picked(rng, split)
    schema = {"name": rng.choice(_NAMES), "schema": _schema(fields)}
    if rng.random() < 0.3:
        schema["strict"] = True
    return _formatted(rng, fields, sentence), {"type": "json_schema", "json_schema": schema}


def _formatted(rng: random.Random, fields: list, sentence: str) -> Turn:
    user = rng.choice((sentence, sentence, f"Extract the data: {sentence}", f"{sentence} Give me the data."))
    answer = _answer(fields)
    return Turn(user, answer, _thought(fields), [answer], "json")


def turn_for(rng: random.Random, split: str, form: dict) -> Turn:
    """Another turn under the same response format, with new facts."""
    if form["type"] == "json_object":
        return turn_plain(rng, split)
    names = list(form["json_schema"]["schema"]["properties"])
    known = next((rows for rows in _pools(rng, split) if {row[0] for row in rows} >= set(names)), None)
    if known is None:
        return _any_turn_for(rng, form)
    rows = {row[0]: row for row in known}
    fields = [rows[name] for name in names]
    told = [known[0], *(row for row in fields if row is not known[0])]
    others = [row for row in known[1:] if row[0] not in names]
    return _formatted(rng, fields, _sentence(rng, told, rng.sample(others, rng.randint(0, 1))))


def _any_turn_for(rng: random.Random, form: dict) -> Turn:
    """Another turn for fields of any name."""
    fields = []
    for key, schema in form["json_schema"]["schema"]["properties"].items():
        kind = "strings" if schema["type"] == "array" else schema["type"]
        fact = _any_fact(rng, key, kind)
        fields.append((*fact[:3], None) if key == "item" else fact)
    told = sorted(fields, key=lambda row: row[3] is not None)
    return _formatted(rng, fields, _sentence(rng, told, []))
