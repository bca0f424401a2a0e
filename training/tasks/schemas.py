"""Random tool schemas: names, parameters, values, and the words a person uses for them."""

import random
from dataclasses import dataclass, field

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
    """A string that suits the parameter's meaning; sometimes any string."""
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
        pool = w.COLORS if param.flavour == "colors" else w.PEOPLE if param.flavour in ("names", "users") else w.NOUNS
        if rng.random() < 0.25:
            return [w.nonsense(rng, split) for _ in range(rng.randint(1, 3))]
        return rng.sample(pool, rng.randint(1, 4))
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


def tool(rng: random.Random, split: str, taken: set, most: int) -> Tool:
    """A random tool with up to `most` parameters, whose verb group and thing are not both in `taken`."""
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
    """Values for all required and some optional parameters, in schema order."""
    return {p.name: value(rng, p, split) for p in tool_.params if p.required or rng.random() < 0.4}
