"""Checks the labels of many generated conversations: `python training/test_data.py`. Exit status 1 on any mistake."""

import json
import random
import re
import sys

import pool
import words as w
from dialogues import draft, make, make_retrieval

_EDITS = {"Edit", "edit", "edit_file", "replace_in_file", "replace", "str_replace"}
_WORD = re.compile(r"[\w-]+")
_SUM = re.compile(r"(?<![\d-])(?<![-+*] )(\d+) ([-+*]) (\d+) = (-?\d+)(?! \*)")


def check_sums(text: str) -> list:
    """Written sums of two numbers that do not hold."""
    wrong = []
    for a, sign, b, result in _SUM.findall(text):
        right = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
        if right != int(result):
            wrong.append(f"{a} {sign} {b} = {result}")
    return wrong


def _spoken(value, text: str) -> bool:
    if isinstance(value, bool):
        return True
    if isinstance(value, list):
        return all(_spoken(item, text) for item in value)
    if isinstance(value, dict):
        return all(_spoken(item, text) for item in value.values())
    return str(value) in text


def _typed(value, schema: dict) -> bool:
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
    kind = schema["type"] if isinstance(schema["type"], str) else schema["type"][0]
    if isinstance(value, bool) != (kind == "boolean"):
        return False
    return isinstance(value, kinds[kind]) and value in schema.get("enum", [value])


def _bare(value: str) -> list:
    """The parts of a shell command that must stand in the conversation."""
    return [part for part in value.split() if part not in ("ls", "cat", "grep", "-rn", "bash", "-lc", "make", "test")]


def check_values(arguments: dict, text: str) -> bool:
    """True when every value was said before; shell commands may be composed, their description repeats them."""
    for key, value in arguments.items():
        parts = [value]
        if key in ("command", "cmd"):
            command = value[-1] if isinstance(value, list) else value
            parts = _bare(command)
        elif key == "description" and "command" in arguments and value == f"Run {arguments['command']}":
            parts = []
        # A path may join a folder and a listed name, an edit a told line and a told value.
        if not all(_spoken(part, text) or all(_spoken(p, text) for p in _WORD.findall(str(part))) for part in parts):
            return False
    return True


def check_edits(messages: list) -> list:
    """Edits of a file that was read before whose old text is not exactly once in it."""
    wrong, seen = [], {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            values = [str(value) for value in json.loads(call["function"]["arguments"]).values()]
            seen[call["id"]] = values
            if len(values) == 3 and call["function"]["name"] in _EDITS and values[0] in seen and seen[values[0]].count(values[1]) < 1:
                wrong.append(f"edit of {values}")
        if message["role"] == "tool" and len(seen.get(message["tool_call_id"], ())) == 1:
            seen[seen[message["tool_call_id"]][0]] = message["content"]
    return wrong


def check_calls(messages: list) -> list:
    """Calls whose arguments break the schema or stand in no earlier text."""
    offered = {t["function"]["name"]: t["function"]["parameters"] for t in messages[0].get("tools", [])}
    wrong = []
    text = ""
    for message in messages[1:]:
        for call in message.get("tool_calls", ()):
            name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
            schema = offered[name]
            order = [key for key in schema["properties"] if key in arguments]
            good = order == list(arguments) and all(key in arguments for key in schema.get("required", []))
            good = good and all(_typed(value, schema["properties"][key]) for key, value in arguments.items())
            here = text if name not in ("list_files", "list", "ls") else text + "."
            good = good and check_values(arguments, here)
            if not good:
                wrong.append(f"{name} {arguments} for {text[-200:]!r}")
        if message["role"] in ("user", "tool"):
            text += " " + message["content"]
    return wrong


def main() -> int:
    """Checks 6000 conversations of both parts, determinism, and the separation of made-up words."""
    wrong = []
    for seed in range(6000):
        made = draft(random.Random(f"check {seed}"), "eval" if seed % 4 == 0 else "train", 4096 if seed % 50 == 0 else 512 if seed % 2 else 1024)
        wrong += check_calls(made.messages) + check_edits(made.messages)
        for message in made.messages:
            if message["role"] == "assistant":
                wrong += check_sums(message["content"]) + check_sums(message.get("reasoning_content") or "")
    if make(7, 512) != make(7, 512) or make_retrieval(7, 1000) != make_retrieval(7, 1000):
        wrong.append("a document is not a function of its seed")
    rng = random.Random(1)
    trained = {w.nonsense(rng, "train") for _ in range(20000)}
    if any(w.nonsense(rng, "eval") in trained for _ in range(20000)):
        wrong.append("a made-up word is in both parts")
    drawn = [draw(rng) for draw in (pool.word, pool.name, pool.label, pool.value) for _ in range(20000)]
    wrong += [f"{text} is held out but in the pool" for text in drawn if w.held(text)]
    wrong += [f"{text!r} does not fit into a request" for text in drawn if text != text.strip() or text[-1] in ".?,;"]
    print(f"{len(wrong)} mistakes")
    for line in wrong[:20]:
        print(" ", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
