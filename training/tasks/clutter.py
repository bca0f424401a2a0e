"""What real clients add to a tool's schema: keywords of JSON Schema, long descriptions, other orders of the keys.

None of it changes which call is right.
"""

import random

_USE = (
    "Use this tool when the user asks for it.", "Use this tool only when it is needed.",
    "Do not use it for anything else.", "Prefer this tool over running a command.",
    "The result comes back as plain text.", "The result is a JSON object.", "It returns an error when the input is wrong.",
    "Do not call it more than once for the same input.", "You can call several tools in one turn.",
    "Always give all required values.", "Never guess a value that the user did not give.",
    "If a value is missing, ask the user first.", "This tool may be slow for large inputs.",
    "It does not change anything.", "It changes the data, so be careful.", "The output may be cut when it is too long.",
    "By default the first 2000 lines are returned.", "Results are sorted by time, the newest first.",
    "Works with any size of project.", "This tool needs no network.", "The tool runs in the working directory.",
    "Make sure that the input is valid before you call this tool.", "Only one request is handled at a time.",
    "Usage notes:\n- Keep the input short.\n- Do not repeat failed calls.", "IMPORTANT: do not invent inputs.",
    "For open ended tasks that need several rounds, use another tool instead.",
    "You must use this tool at least once before you change the same thing.", "Returns an empty text when nothing was found.",
    "Supports full regular expression syntax.", "Do not use it for general questions or small talk.",
    "Examples of when to use it: the user asks for this action by name or by its purpose.",
)  # fmt: skip
_VALUE = (
    "Must not be empty.", "This value is required for most requests.", "Leave it out to use the default.",
    "Given by the user.", "Only provide it if the user asks for it.", "Do not change the spelling.",
    "Defaults to the usual setting.", "Can be any valid value.", "At most 255 characters.", "Must be absolute, not relative.",
    "For example as written in the request.", "If omitted, it will not be used.",
    "DO NOT enter \"undefined\" or \"null\", simply omit it.",
)  # fmt: skip
_DIALECTS = ("http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema")
_PATTERNS = ("^.+$", "^[^\\n]*$", ".*", "^\\S.*$")
_DEFAULTS = {"string": ("", "none", "default", "auto"), "integer": (0, 1, 10, 100), "number": (0, 1.0, 0.5),
             "boolean": (True, False)}  # fmt: skip


def _mixed(rng: random.Random, fields: dict) -> dict:
    items = list(fields.items())
    rng.shuffle(items)
    return dict(items)


def _sentences(rng: random.Random, bank: tuple, most: int) -> str:
    return (" " if rng.random() < 0.8 else "\n").join(rng.sample(bank, rng.randint(1, most)))


class Style:
    """How one client writes schemas; all tools of a request share it. `wordy` is 0 (no long texts) to 4 sentences."""

    def __init__(self, rng: random.Random, wordy: int):
        self.rng, self.wordy = rng, wordy
        pick = rng.random
        self.dialect = rng.choice(_DIALECTS) if pick() < 0.4 else None
        self.closed, self.strict = pick() < 0.55, pick() < 0.35
        self.keywords, self.titles, self.nullable = pick() < 0.5, pick() < 0.25, pick() < 0.15
        self.texts, self.orders = pick() < 0.6, pick() < 0.5

    def value(self, name: str, schema: dict, required: bool) -> dict:
        """One parameter's schema with additions."""
        rng = self.rng
        made = dict(schema)
        kind = made.get("type")
        if self.titles:
            made["title"] = name.replace("_", " ").capitalize()
        if self.keywords and rng.random() < 0.6:
            self._keywords(name, made, kind, required)
        if self.texts and self.wordy and rng.random() < 0.5:
            made["description"] = f"{made.get('description', '')} {_sentences(rng, _VALUE, 2)}".strip()
        if "enum" in made and rng.random() < 0.3:
            told = "One of: " + ", ".join(made["enum"]) + "."
            made["description"] = f"{made.get('description', '')} {told}".strip()
        if self.nullable and not required and isinstance(kind, str) and "enum" not in made:
            made["type"] = [kind, "null"]
        if kind == "object" and "properties" in made:
            made["properties"] = {key: self.value(key, inner, True) for key, inner in made["properties"].items()}
            if self.closed:
                made["additionalProperties"] = False
        return _mixed(rng, made) if self.orders else made

    def _keywords(self, name: str, made: dict, kind, required: bool) -> None:
        rng = self.rng
        if kind in ("integer", "number"):
            made[rng.choice(("minimum", "exclusiveMinimum"))] = -100
            if rng.random() < 0.6:
                made["maximum"] = rng.choice((10000, 100000, 9007199254740991))
        elif kind == "string" and "enum" not in made:
            sort = next((sort for sort in ("date", "email", "time") if sort in name), None)
            if sort and rng.random() < 0.5:
                made["format"] = sort
            elif rng.random() < 0.4:
                made["pattern"] = rng.choice(_PATTERNS)
            else:
                made["minLength"] = 1
        elif kind == "array":
            made["minItems"] = 1
        if kind in _DEFAULTS and "enum" not in made:
            key = "default" if not required and rng.random() < 0.6 else "examples"
            found = rng.choice(_DEFAULTS[kind])
            if key == "default":
                made[key] = found
            elif rng.random() < 0.3:
                made[key] = [found]

    def tool(self, entry: dict) -> dict:
        """The same tool with additions."""
        rng, function = self.rng, dict(entry["function"])
        schema = dict(function["parameters"])
        needed = schema.get("required", ())
        schema["properties"] = {n: self.value(n, s, n in needed) for n, s in schema["properties"].items()}
        if self.closed:
            schema["additionalProperties"] = False
        if self.dialect:
            schema = {"$schema": self.dialect, **schema}
        function["parameters"] = _mixed(rng, schema) if self.orders else schema
        if self.wordy and rng.random() < 0.75:
            described = function.get("description", "")
            if described and described[-1] != ".":
                described += "."
            joint = " " if rng.random() < 0.7 else "\n\n"
            function["description"] = (described + joint + _sentences(rng, _USE, self.wordy)).strip()
        if self.strict:
            function["strict"] = True
        return {"type": "function", "function": _mixed(rng, function) if self.orders else function}


def dress(rng: random.Random, offered: list, wordy: int) -> list:
    """All tools in the style of one random client; `wordy`: the most sentences that are added to a description."""
    style = Style(rng, wordy)
    return [style.tool(entry) for entry in offered]
