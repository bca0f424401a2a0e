"""Tools as real clients offer them: weather, files, shell, search, mail. Fixed names, simple results."""

import json
import random
from dataclasses import dataclass
from typing import Callable

import words as w

from .results import Result
from .schemas import date, path, phrase

_dumps = json.JSONEncoder(ensure_ascii=False).encode


@dataclass
class Known:
    """A tool with a fixed schema. `ask(rng, split)` gives user text, arguments and a suitable result."""

    name: str
    description: str
    properties: dict
    required: list
    purpose: str
    ask: Callable
    keys: tuple = ()

    def openai(self) -> dict:
        """The tool as a request carries it."""
        parameters = {"type": "object", "properties": self.properties, "required": self.required}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


def _text(body: str) -> Result:
    return Result(body, {}, f"The result is: {body}.", [body])


def _done() -> Result:
    return Result("ok", {}, "Done.", ["done"])


_SKY = "sunny cloudy rainy windy clear dry wet cold warm".split()


def _weather(rng: random.Random, split: str) -> tuple:
    city = rng.choice(w.CITIES) if rng.random() < 0.85 else w.nonsense(rng, split).capitalize()
    text = rng.choice((
        "What is the weather in {}?", "weather in {}", "How is the weather in {}?", "What's the weather in {}?",
        "Is it cold in {}?", "Tell me the weather in {}.", "what is the weather like in {}", "Weather for {}, please.",
        "What is the weather in {} today?", "Get the weather for {}.",
    )).format(city)  # fmt: skip
    degrees, sky = rng.randint(-9, 39), rng.choice(_SKY)
    unit = rng.choice((None, None, None, "celsius", "fahrenheit"))
    arguments = {"city": city}
    if unit:
        arguments["unit"] = unit
        text = text.rstrip("?.") + rng.choice((" in ", ", unit ", ". Use ")) + unit + "."
    shown = {"city": city, "temperature": degrees, "condition": sky}
    if rng.random() < 0.4:
        shown.pop("city")
    body = _dumps(shown) if rng.random() < 0.8 else f"{sky}, {degrees} degrees"
    answer = f"The weather in {city} is {sky}, {degrees} degrees."
    return text, arguments, Result(body, {}, answer, [sky, str(degrees)])


def _time(rng: random.Random, split: str) -> tuple:
    city = rng.choice(w.CITIES)
    text = rng.choice(("What time is it in {}?", "time in {}", "Tell me the time in {}.", "what is the time in {}?"))
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    body = clock if rng.random() < 0.5 else _dumps({"time": clock})
    return text.format(city), {"city": city}, Result(body, {}, f"The time in {city} is {clock}.", [clock])


def _content(rng: random.Random, split: str) -> str:
    return rng.choice((phrase(rng), f"{rng.choice(w.NOUNS)} = {rng.randint(0, 99)}", w.nonsense(rng, split)))


def _read(rng: random.Random, split: str) -> tuple:
    file = path(rng, split)
    text = rng.choice((
        "Read the file {}.", "read {}", "Show me {}.", "What is in {}?", "Open {} and tell me what it says.", "cat {}",
        "Please read {}.", "read the file {}", "What does {} say?", "Can you read {}?", "Look at {}.",
        "show the file {}",
    )).format(file)  # fmt: skip
    body = _content(rng, split)
    if rng.random() < 0.3:
        body = "\n".join(_content(rng, split) for _ in range(rng.randint(2, 3)))
    return text, {"path": file}, Result(body, {}, f"The file says: {body}", [body])


def _write(rng: random.Random, split: str) -> tuple:
    file, body = path(rng, split), _content(rng, split)
    text = rng.choice((
        'Write "{b}" to {f}.', 'write "{b}" into {f}', 'Save the text "{b}" as {f}.', 'Create the file {f} with "{b}".',
        'Put "{b}" in the file {f}.', 'Make a file {f} that says "{b}".',
    )).format(f=file, b=body)  # fmt: skip
    return text, {"path": file, "content": body}, _done()


def _edit(rng: random.Random, split: str) -> tuple:
    file, old, new = path(rng, split), _content(rng, split), _content(rng, split)
    text = rng.choice((
        'In {f}, replace "{o}" with "{n}".', 'Change "{o}" to "{n}" in {f}.', 'Edit {f}: "{o}" becomes "{n}".',
        'replace "{o}" by "{n}" in {f}',
    )).format(f=file, o=old, n=new)  # fmt: skip
    return text, {"path": file, "old": old, "new": new}, _done()


def _folder(rng: random.Random, split: str) -> str:
    return rng.choice(("src", "docs", "tests", "data", ".", rng.choice(w.NOUNS), w.nonsense(rng, split)))


def _list(rng: random.Random, split: str) -> tuple:
    folder = _folder(rng, split)
    if folder == ".":
        text = rng.choice(("List the files.", "list files", "Which files are here?", "Show me the files.", "ls"))
    else:
        text = rng.choice((
            "List the files in {}.", "What is in the folder {}?", "list {}", "Show me the files in {}.",
            "Which files are in {}?", "ls {}",
        )).format(folder)  # fmt: skip
    names = [f"{rng.choice(w.NOUNS)}.{rng.choice(w.EXTENSIONS)}" for _ in range(rng.randint(1, 4))]
    return text, {"path": folder}, Result("\n".join(names), {}, f"The files are: {', '.join(names)}.", names)


def _bash(rng: random.Random, split: str) -> tuple:
    file, noun = path(rng, split), rng.choice(w.NOUNS)
    command = rng.choice((
        "ls -la", "pwd", "make", "make test", "cargo build", "cargo test", "git status", "git log", f"cat {file}",
        f"wc -l {file}", f"rm {file}", f"mkdir {noun}", f"python {noun}.py", f"grep {noun} {file}", f"echo {noun}",
        "date",
        f"touch {file}", "whoami", f"head -n {rng.randint(1, 50)} {file}", f"cp {file} {noun}.txt", f"cd {noun} && ls",
    ))  # fmt: skip
    text = rng.choice(
        ("Run {}", "run {}", "Run the command {}", "Please run `{}`.", "Execute `{}`.", "run `{}` for me")
    )
    body = _content(rng, split)
    return text.format(command), {"command": command}, _text(body)


def _search(rng: random.Random, split: str) -> tuple:
    query = rng.choice((phrase(rng).lower(), w.nonsense(rng, split), w.pair(rng, split)))
    text = rng.choice((
        'Search for "{}".', 'search "{}"', "Search for {}", "Find {}", 'Look for "{}".', "search for {}",
        'Look up "{}".',
    ))  # fmt: skip
    items = [f"{rng.choice(w.ADJECTIVES)} {rng.choice(w.NOUNS)}" for _ in range(rng.randint(1, 3))]
    arguments = {"query": query}
    spoken = text.format(query)
    if rng.random() < 0.25:
        arguments["limit"] = rng.randint(1, 20)
        spoken = spoken.rstrip(".") + f", at most {arguments['limit']} results."
    return spoken, arguments, Result("\n".join(items), {}, f"I found: {', '.join(items)}.", items)


def _mail(rng: random.Random, split: str) -> tuple:
    to = f"{rng.choice(w.PEOPLE).lower()}@{rng.choice(w.DOMAINS)}"
    subject, body = phrase(rng), phrase(rng)
    text = rng.choice((
        'Send an email to {t} with subject "{s}" and body "{b}".', 'Write to {t}: subject "{s}", body "{b}".',
        'Email {t}, subject "{s}", text "{b}".',
    )).format(t=to, s=subject, b=body)  # fmt: skip
    return text, {"to": to, "subject": subject, "body": body}, _done()


def _timer(rng: random.Random, split: str) -> tuple:
    minutes = rng.randint(1, 90)
    text = rng.choice(
        ("Set a timer for {} minutes.", "timer {} minutes", "Start a timer of {} minutes.", "set a {} minute timer")
    )
    return text.format(minutes), {"minutes": minutes}, _done()


def _calculator(rng: random.Random, split: str) -> tuple:
    a, b, sign = rng.randint(100, 999), rng.randint(10, 99), rng.choice("+-*")
    expression = f"{a} {sign} {b}"
    text = rng.choice(("Calculate {}.", "What is {}?", "Compute {}.", "calculate {}")).format(expression)
    total = {"+": a + b, "-": a - b, "*": a * b}[sign]
    return text, {"expression": expression}, Result(str(total), {}, f"The result is {total}.", [str(total)])


def _event(rng: random.Random, split: str) -> tuple:
    title, day = phrase(rng), date(rng)
    text = rng.choice((
        'Create an event "{t}" on {d}.', 'Add "{t}" to my calendar on {d}.', 'Plan "{t}" for {d}.',
        'new event "{t}", {d}',
    )).format(t=title, d=day)  # fmt: skip
    return text, {"title": title, "date": day}, _done()


_S = {"type": "string"}
_I = {"type": "integer"}
_CITY = {"type": "string", "description": "The city."}
_PATH = {"type": "string", "description": "The path of the file."}
_UNIT = {"type": "string", "enum": ["celsius", "fahrenheit"]}

# Purpose: names and schema variants, so that no single spelling is learned.
_ROWS = [
    ("the weather", ("get_weather", "get_current_weather", "weather"), "Get the weather of a city.",
     {"city": _CITY, "unit": _UNIT}, ["city"], _weather, ("get", "weather")),
    ("the time", ("get_time", "current_time"), "Get the time in a city.", {"city": _CITY}, ["city"], _time, ("get",
    "time")),
    ("to read a file", ("read_file", "read", "open_file"), "Read a file.", {"path": _PATH}, ["path"], _read, ("read",
    "file")),
    ("to write a file", ("write_file", "write"), "Write text to a file.",
     {"path": _PATH, "content": _S}, ["path", "content"], _write, ("write", "file")),
    ("to edit a file", ("edit_file", "edit", "replace"), "Replace text in a file.",
     {"path": _PATH, "old": _S, "new": _S}, ["path", "old", "new"], _edit, ("update", "file")),
    ("the files of a folder", ("list_files", "list", "ls"), "List the files in a folder.",
     {"path": _S}, ["path"], _list, ("get", "folder")),
    ("to run a command", ("bash", "run_command", "shell", "run"), "Run a shell command.",
     {"command": {"type": "string", "description": "The command."}}, ["command"], _bash, ("start", "command")),
    ("to search", ("search", "web_search", "find"), "Search for text.",
     {"query": _S, "limit": _I}, ["query"], _search, ("find", "text")),
    ("to send an email", ("send_email", "send_mail"), "Send an email.",
     {"to": _S, "subject": _S, "body": _S}, ["to", "subject", "body"], _mail, ("send", "email")),
    ("a timer", ("set_timer", "timer"), "Set a timer.", {"minutes": _I}, ["minutes"], _timer, ("start", "timer")),
    ("to calculate", ("calculator", "calculate"), "Calculate an expression.",
     {"expression": _S}, ["expression"], _calculator, ("count", "expression")),
    ("to plan an event", ("create_event", "add_event"), "Create an event on a date.",
     {"title": _S, "date": _S}, ["title", "date"], _event, ("create", "event")),
]  # fmt: skip
# Optional parameters that some clients add and that requests here leave out, by purpose.
_EXTRAS = {
    "to read a file": {"start_line": _I, "max_lines": _I},
    "to run a command": {"timeout_sec": _I},
    "to search": {"path": _S, "case_sensitive": {"type": "boolean"}},
    "the weather": {"days": _I},
    "to send an email": {"cc": _S},
}
_CODING = (2, 3, 4, 5, 6, 7)


def choose(rng: random.Random, count: int) -> list:
    """`count` different known tools; half of the time only those of a coding agent."""
    pool = _CODING if rng.random() < 0.5 else range(len(_ROWS))
    chosen = []
    for row in rng.sample(list(pool), count):
        purpose, names, description, properties, required, ask, key = _ROWS[row]
        if rng.random() < 0.3:
            description = description[:-1]
        if rng.random() < 0.35:
            properties = {**properties, **_EXTRAS.get(purpose, {})}
        chosen.append(Known(rng.choice(names), description, properties, required, purpose, ask, (key,)))
    return chosen
