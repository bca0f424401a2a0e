"""Random tool schemas: names, parameters, values, and the words a person uses for them."""

import random
from dataclasses import dataclass, field

import pool
import words as w

PREFIX_WORDS = {"city": "in", "date": "on", "email": "to", "path": "at", "time": "at", "name": "named", "owner": "for"}


@dataclass
class Param:
    """One parameter: its JSON schema and how a person may call it (`labels`)."""

    name: str
    kind: str
    schema: dict
    labels: list
    flavour: str
    required: bool = False
    choices: list = field(default_factory=list)


@dataclass
class Tool:
    """One tool: the OpenAI function object, its parameters, and the wordings of its purpose ("paint the lamp")."""

    name: str
    function: dict
    params: list
    intents: list
    thing: str

    def openai(self) -> dict:
        """The tool as a request carries it."""
        return {"type": "function", "function": self.function}


class Family:
    """What the tools of one training request share, so that only the whole name and description tell them apart."""

    def __init__(self, rng: random.Random):
        self.names = [pool.word(rng) for _ in range(rng.choice((1, 1, 2)))] if rng.random() < 0.6 else []
        self.verbs = [_any_verb(rng) for _ in range(rng.choice((1, 2, 3)))] if rng.random() < 0.6 else []
        self.things = [_any_thing(rng) for _ in range(rng.choice((1, 2, 3)))] if rng.random() < 0.6 else []
        self.params = [any_key(rng) for _ in range(rng.choice((2, 3, 4)))] if rng.random() < 0.6 else []
        # Share of names, descriptions and parameters that come from the pool, and of shared ones among these.
        self.wild, self.shared = rng.choice((0.5, 0.8, 1.0)), rng.choice((0.5, 0.8))


def _any_verb(rng: random.Random) -> str:
    return rng.choice(w.VERBS) if rng.random() < 0.25 else pool.word(rng)


def _any_thing(rng: random.Random) -> str:
    return rng.choice(w.SPLIT_NOUNS["train"]) if rng.random() < 0.25 else pool.label(rng)


def any_key(rng: random.Random) -> str:
    """A parameter name: any identifier, or a usual one with a word before or behind it."""
    if rng.random() < 0.75:
        return pool.name(rng)
    usual = rng.choice(w.SPLIT_STRINGS["train"] + w.SPLIT_INTEGERS["train"] + w.SPLIT_BOOLEANS["train"])
    while True:
        parts = [usual, pool.word(rng)]
        rng.shuffle(parts)
        text = pool.join(rng, parts)
        if not w.held(text):
            return text


def phrase(rng: random.Random) -> str:
    """Two to five plain words, as a title or a message holds them."""
    count = rng.choice((2, 2, 3, 3, 4, 5))
    text = " ".join(rng.choice(w.ADJECTIVES if i % 2 == 0 else w.NOUNS) for i in range(count))
    return text.capitalize() if rng.random() < 0.3 else text


def identifier(rng: random.Random, split: str, nouns: list) -> str:
    """A made-up or composed name in one of the usual spellings."""
    first = rng.choice(w.VERBS) if rng.random() < 0.6 else rng.choice(w.ADJECTIVES)
    return spell(rng, [first, rng.choice(nouns)]) if rng.random() < 0.8 else w.nonsense(rng, split)


def spell(rng: random.Random, parts: list) -> str:
    """Joins words as snake_case (most often), camelCase, kebab-case or dotted."""
    style = rng.random()
    if style < 0.62:
        return "_".join(parts)
    if style < 0.8:
        return parts[0] + "".join(p.capitalize() for p in parts[1:])
    return ("-" if style < 0.92 else ".").join(parts)


def path(rng: random.Random, split: str) -> str:
    """A relative file path."""
    stem = rng.choice(w.NOUNS) if rng.random() < 0.7 else w.nonsense(rng, split)
    folder = rng.choice(("", "", "src/", "docs/", "data/", "tests/", rng.choice(w.NOUNS) + "/"))
    return f"{folder}{stem}.{rng.choice(w.EXTENSIONS)}"


def date(rng: random.Random) -> str:
    """A date like 2024-05-17."""
    return f"20{rng.randint(20, 29)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def code(rng: random.Random, split: str) -> str:
    """A short label: made-up word, letters and digits, or a number."""
    style = rng.random()
    if style < 0.5:
        return w.nonsense(rng, split)
    if style < 0.75:
        return rng.choice("ABCDEFGHKLMNPRSTXZ") + rng.choice("ABCDEFGHKLMNPRSTXZ") + f"-{rng.randint(10, 99)}"
    return str(rng.randint(1000, 9999))


_PERSON = {"user", "owner", "author"}
_LONG = {"title", "text", "message", "subject", "comment", "note", "query", "reason", "topic"}


def text_value(rng: random.Random, flavour: str, split: str) -> str:
    """A string that suits the parameter's meaning; sometimes any string, in training often of the pool."""
    if split == "train" and rng.random() < 0.4:
        return pool.value(rng)
    if rng.random() < 0.2:
        return rng.choice((w.nonsense(rng, split), rng.choice(w.NOUNS), phrase(rng)))
    if flavour in _PERSON:
        return rng.choice(w.PEOPLE)
    if flavour in _LONG:
        return phrase(rng)
    if flavour == "city":
        return rng.choice(w.CITIES)
    if flavour == "country":
        return rng.choice(list(w.CAPITALS))
    if flavour == "color":
        return rng.choice(w.COLORS)
    if flavour in ("path", "folder"):
        return path(rng, split)
    if flavour == "email":
        name = rng.choice(w.PEOPLE).lower() if rng.random() < 0.6 else w.nonsense(rng, split)
        return f"{name}@{rng.choice(w.DOMAINS)}"
    if flavour == "date":
        return date(rng)
    if flavour == "time":
        return f"{rng.randint(0, 23):02d}:{rng.choice((0, 15, 30, 45)):02d}"
    if flavour in ("code", "key"):
        return code(rng, split)
    style = rng.random()
    if style < 0.45:
        return w.nonsense(rng, split)
    return rng.choice(w.NOUNS) if style < 0.7 else rng.choice(w.PEOPLE)


def integer(rng: random.Random) -> int:
    """Mostly small, sometimes with four digits, rarely negative."""
    style = rng.random()
    if style < 0.8:
        return rng.randint(0, 99)
    return rng.randint(100, 9999) if style < 0.97 else -rng.randint(1, 50)


def decimal(rng: random.Random):
    """A number with one or two decimals, or a whole one."""
    style = rng.random()
    if style < 0.15:
        return rng.randint(1, 99)
    return rng.randint(1, 999) / 10 if style < 0.75 else rng.randint(1, 9999) / 100


def value(rng: random.Random, param: Param, split: str):
    """A random value of the parameter's type."""
    kind = param.kind
    if kind == "string":
        return text_value(rng, param.flavour, split)
    if kind == "integer":
        return integer(rng)
    if kind == "number":
        return decimal(rng)
    if kind == "boolean":
        return rng.random() < 0.6
    if kind == "enum":
        return rng.choice(param.choices)
    if kind == "integers":
        return [rng.randint(0, 99) for _ in range(rng.randint(1, 4))]
    if kind == "strings":
        if split == "train" and rng.random() < 0.4:
            return [pool.word(rng) if rng.random() < 0.7 else pool.name(rng) for _ in range(rng.randint(1, 4))]
        words = w.COLORS if param.flavour == "colors" else w.PEOPLE if param.flavour in ("names", "users") else w.NOUNS
        if rng.random() < 0.25:
            return [w.nonsense(rng, split) for _ in range(rng.randint(1, 3))]
        return rng.sample(words, rng.randint(1, 4))
    return {key: text_value(rng, key, split) if sort == "string" else integer(rng) for key, sort in param.choices}


_KINDS = ["string"] * 9 + ["integer"] * 5 + ["number"] * 2 + ["boolean"] * 3 + ["enum"] * 3 + ["strings"] * 2
_KINDS += ["integers", "object"]
_TEXT_KEYS = {"street", "city", "name", "from", "to"}


def _base_name(rng: random.Random, kind: str, split: str) -> str:
    if kind == "string":
        return rng.choice(w.SPLIT_STRINGS[split])
    if kind == "integer":
        return rng.choice(w.SPLIT_INTEGERS[split])
    if kind == "number":
        return rng.choice(w.SPLIT_NUMBERS[split])
    if kind == "boolean":
        return rng.choice(w.SPLIT_BOOLEANS[split])
    if kind == "enum":
        return rng.choice(list(w.PARAM_ENUMS))
    if kind == "object":
        return rng.choice(list(w.PARAM_OBJECTS))
    numbers = ("numbers", "ids", "sizes", "levels")
    return rng.choice([n for n in w.PARAM_LISTS if (n in numbers) == (kind == "integers")])


def _schema(rng: random.Random, kind: str, base: str) -> tuple:
    """JSON schema of a parameter and its choices (enum values or object members)."""
    if kind == "enum":
        choices = list(w.PARAM_ENUMS[base])
        if rng.random() < 0.3:
            choices = rng.sample(w.ADJECTIVES, 3)
        return {"type": "string", "enum": choices}, choices
    if kind in ("strings", "integers"):
        return {"type": "array", "items": {"type": kind[:-1]}}, []
    if kind == "object":
        members = [(key, "string" if key in _TEXT_KEYS else "integer") for key in w.PARAM_OBJECTS[base]]
        return {"type": "object", "properties": {key: {"type": sort} for key, sort in members}}, members
    return {"type": kind}, []


def parameter(rng: random.Random, split: str, used: set) -> Param:
    """A parameter whose name and labels are not in `used` (they are added)."""
    while True:
        kind = rng.choice(_KINDS)
        # Half of the evaluation's parameters take words that training also names parameters with.
        base = _base_name(rng, kind, split if split == "train" or rng.random() < 0.5 else "train")
        style = rng.random()
        label, name = base, base
        if style < 0.22:
            adjective = rng.choice(w.ADJECTIVES) if rng.random() < 0.6 else rng.choice(w.SPLIT_NOUNS[split])
            label = f"{adjective} {base}"
            name = f"{adjective}_{base}" if rng.random() < 0.7 else adjective + base.capitalize()
            if w.held(label) != (split == "eval") and adjective != base:
                continue
        elif style < 0.32:
            name = w.nonsense(rng, split)
            label = base
        label = label.replace("_", " ")
        if name in used or label in used or base in used:
            continue
        used.update((name, label, base))
        schema, choices = _schema(rng, kind, base)
        labels = [label, label, name]
        if 0.22 <= style < 0.32 or rng.random() < 0.7:
            schema["description"] = rng.choice(("The {}.", "The {}", "{}", "{} to use")).format(label)
            schema["description"] = schema["description"][0].upper() + schema["description"][1:]
        return Param(name, kind, schema, labels, base, choices=choices)


def any_parameter(rng: random.Random, family: Family, used: set) -> Param:
    """A parameter of any name; the description may call it by another word, and so may the request."""
    while True:
        kind = rng.choice(_KINDS)
        shared = family.params and rng.random() < family.shared
        name = rng.choice(family.params) if shared else any_key(rng)
        if shared and rng.random() < 0.3:
            name = pool.join(rng, [name, pool.word(rng)])
        own = rng.random() < 0.6
        label = name.replace("_", " ") if own else pool.label(rng)
        base = _base_name(rng, kind, "train")
        if name not in used and label not in used and not w.held(name) and not w.held(label):
            break
    used.update((name, label))
    schema, choices = _schema(rng, kind, base)
    if kind == "enum" and rng.random() < 0.7:
        choices = [pool.word(rng) if rng.random() < 0.7 else pool.name(rng) for _ in range(rng.randint(2, 5))]
        schema["enum"] = choices = list(dict.fromkeys(choices))
    elif kind == "object" and rng.random() < 0.7:
        keys = list(dict.fromkeys(pool.word(rng) for _ in range(rng.randint(1, 3))))
        choices = [(key, rng.choice(("string", "integer"))) for key in keys]
        schema["properties"] = {key: {"type": sort} for key, sort in choices}
    if not own or rng.random() < 0.4:
        text = rng.choice(("The {}.", "The {}", "{}", "{} to use")).format(label)
        schema["description"] = text[0].upper() + text[1:]
    return Param(name, kind, schema, [label, label, name], base, choices=choices)


def any_tool(rng: random.Random, family: Family, taken: set, most: int) -> Tool:
    """A random training tool whose words are of the pool or of its family; verb and thing are not both in `taken`."""
    while True:
        verb = rng.choice(family.verbs) if family.verbs and rng.random() < family.shared else _any_verb(rng)
        thing = rng.choice(family.things) if family.things and rng.random() < family.shared else _any_thing(rng)
        telling = rng.random() < 0.3
        parts = [verb, *thing.split()] if telling else [pool.word(rng) for _ in range(rng.choice((1, 1, 2)))]
        if family.names and rng.random() < family.shared:
            parts.insert(0 if rng.random() < 0.75 else len(parts), rng.choice(family.names))
        name = pool.join(rng, parts)
        if (verb, thing) not in taken and len(name) <= 40 and not w.held(name):
            break
    taken.add((verb, thing))
    function = {"name": name}
    if not telling or rng.random() < 0.8:
        ending = rng.choice(("", ".", " for the user."))
        function["description"] = f"{verb.capitalize()} {rng.choice(('a', 'the', 'one'))} {thing}{ending}"
    used: set = set()
    params = [
        any_parameter(rng, family, used) if rng.random() < family.wild else parameter(rng, "train", used)
        for _ in range(min(most, rng.choice((0, 1, 1, 1, 2, 2, 2, 3, 3, 4))))
    ]
    for i, param in enumerate(params):
        param.required = i == 0 or rng.random() < 0.5
    if rng.random() < 0.15:
        rng.shuffle(params)
    function["parameters"] = _object(params)
    return Tool(name, function, params, [verb], thing)


def tool(rng: random.Random, split: str, taken: set, most: int, family: Family | None = None) -> Tool:
    """A random tool with up to `most` parameters, whose verb group and thing are not both in `taken`."""
    if family and rng.random() < family.wild:
        return any_tool(rng, family, taken, most)
    while True:
        group = rng.choice(w.VERB_GROUPS)
        thing = rng.choice(w.SPLIT_NOUNS[split] if split == "train" or rng.random() < 0.5 else w.SPLIT_NOUNS["train"])
        if rng.random() < 0.15:
            thing = rng.choice(w.ADJECTIVES) + " " + thing
        key = (group[0], thing)
        if key in taken:
            continue
        verb = rng.choice(group)
        made_up = rng.random() < 0.2
        name = w.nonsense(rng, split) if made_up else spell(rng, [verb, *thing.split()])
        if not made_up and w.held(name) != (split == "eval"):
            continue
        break
    taken.add(key)
    if made_up and rng.random() < 0.3:
        name = f"{name}_{w.nonsense(rng, split, 2)}"
    shown = rng.choice(group) if rng.random() < 0.3 else verb
    described = made_up or rng.random() < 0.9
    ending = rng.choice(("", "."))
    description = f"{shown.capitalize()} {rng.choice(('a', 'the', 'one'))} {thing}{ending}"
    params = _parameters(rng, split, most)
    spoken = [shown] if made_up else [shown, verb, rng.choice(group)]
    function = {"name": name}
    if described:
        function["description"] = description
    function["parameters"] = _object(params)
    return Tool(name, function, params, spoken if described else [verb], thing)


def _parameters(rng: random.Random, split: str, most: int) -> list:
    used: set = set()
    count = min(most, rng.choice((0, 1, 1, 1, 2, 2, 2, 3, 3, 4)))
    params = [parameter(rng, split, used) for _ in range(count)]
    for i, param in enumerate(params):
        param.required = i == 0 or rng.random() < 0.5
    return params


def _object(params: list) -> dict:
    schema = {"type": "object", "properties": {p.name: p.schema for p in params}}
    required = [p.name for p in params if p.required]
    if required:
        schema["required"] = required
    return schema


def arguments(rng: random.Random, tool_: Tool, split: str) -> dict:
    """Values for all required and some optional parameters, in schema order.

    In training a string is sometimes the name of a parameter, or begins like one.
    """
    given = {p.name: value(rng, p, split) for p in tool_.params if p.required or rng.random() < 0.4}
    if split == "train":
        for param in tool_.params:
            if param.kind == "string" and param.name in given and rng.random() < 0.06:
                other = rng.choice(tool_.params).name
                given[param.name] = other if rng.random() < 0.5 else other + pool.word(rng)
    return given

