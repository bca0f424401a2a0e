"""Episodes of a coding agent: read, list, search, edit, write and run, several calls in sequence, answers from a line."""

import json
import random

import words as w

from . import clutter, kits, schemas
from .base import listing

_dumps = json.JSONEncoder(ensure_ascii=False).encode


def _plain_key(rng: random.Random, split: str) -> str:
    style = rng.random()
    if style < 0.35:
        return w.pair(rng, split).replace(" ", "_")
    if style < 0.6:
        return rng.choice(("max_", "min_", "default_", "total_", "user_")) + rng.choice(w.NOUNS)
    return rng.choice(w.PARAM_STRINGS + w.PARAM_INTEGERS) if style < 0.8 else w.nonsense(rng, split)


def _plain_value(rng: random.Random, split: str) -> str:
    style = rng.random()
    if style < 0.45:
        return str(rng.randint(0, 99) if rng.random() < 0.6 else rng.randint(100, 9999))
    if style < 0.55:
        return f"{rng.randint(0, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}"
    if style < 0.8:
        return w.nonsense(rng, split)
    return rng.choice(("true", "false", rng.choice(w.COLORS), rng.choice(w.CITIES), rng.choice(w.PEOPLE)))


_FORMS = {
    "txt": ("{k}: {v}",), "md": ("- {k}: {v}", "* {k} = {v}"), "toml": ("{k} = {q}",), "yml": ("{k}: {v}",),
    "json": ('  "{k}": {q},',), "py": ("{k} = {q}", "{K} = {q}"), "rs": ("const {K}: Item = {q};", "let {k} = {q};"),
    "js": ("const {k} = {q};", "let {k} = {q};"), "env": ("{K}={v}",), "c": ("#define {K} {v}",),
    "log": ("{k}={v}",), "ini": ("{k} = {v}",),
}  # fmt: skip
_NOISE = {
    "py": ("def {n}(x):", "    return x", "import {n}", "# {a} {n}", "", "class {N}:", "    pass", "print(\"{n}\")"),
    "rs": ("fn {n}() {{", "}}", "use {n}::{m};", "// {a} {n}", "", "    let x = {m}();", "struct {N};"),
    "js": ("function {n}() {{", "}}", "import {n} from \"{m}\";", "// {a} {n}", "", "  return {m};"),
    "c": ("#include <{n}.h>", "int {n}(void) {{", "}}", "/* {a} {n} */", "", "    return {i};"),
    "md": ("# {N}", "The {n} is {a}.", "", "## {N} and {m}", "See the {m}."),
    "txt": ("The {n} is {a}.", "", "{N} {m}", "---"), "log": ("{i} INFO {n} started", "{i} WARN {a} {m}", "{i} INFO ok"),
    "json": ('  "{n}{i}": {i},', '  "{m}_list": [{i}],', '  "is_{a}": true,'),
}  # fmt: skip
_HASH = ("# {a} {n}", "", "[{n}]", "# the {m}")


def _value_text(value: str, quoted: bool) -> str:
    plain = value.isdigit() or value in ("true", "false")
    return value if plain or not quoted else f'"{value}"'


class File:
    """A made-up file: `rows` maps a key as written to (value, whole line)."""

    def __init__(self, rng: random.Random, split: str, path: str, lines: int, facts: int = 0):
        self.path = path
        sort = path.rsplit(".", 1)[-1]
        forms, noise = _FORMS.get(sort, _FORMS["txt"]), _NOISE.get(sort, _HASH)
        self.rows: dict = {}
        self.lines: list = []
        form = rng.choice(forms)
        facts = facts or max(1, min(lines, rng.randint(1, max(1, lines // 2))))
        fact_lines = set(rng.sample(range(lines), min(lines, facts)))
        lowered: set = set()
        for i in range(lines):
            key = _plain_key(rng, split)
            if i in fact_lines and key.lower() not in lowered:
                lowered.add(key.lower())
                value = _plain_value(rng, split)
                shown = key.upper() if "{K}" in form else key
                line = form.format(k=key, K=key.upper(), v=value, q=_value_text(value, True))
                self.rows[shown] = (value, line)
            else:
                n = rng.choice(w.NOUNS)
                line = rng.choice(noise).format(n=n, N=n.capitalize(), m=rng.choice(w.NOUNS), i=rng.randint(0, 99),
                                                a=rng.choice(w.ADJECTIVES))  # fmt: skip
            self.lines.append(line)
        if sort == "json":
            self.lines = ["{", *self.lines, "}"]

    def shown(self, numbering: str) -> str:
        """The content as a tool shows it, perhaps with line numbers."""
        if not numbering:
            return "\n".join(self.lines)
        return "\n".join(numbering.format(i, line) for i, line in enumerate(self.lines, 1))


_SORTS = tuple(_FORMS)
_FOLDERS = ("src", "docs", "data", "tests", "lib", "app", "config", "scripts")
_NUMBERINGS = ("{:6d}\t{}", "{:6d}\t{}", "{:5d}→{}", "{:05d}| {}", "{}: {}", "L{}: {}")
_FAILS = ("File does not exist.", "ENOENT: no such file or directory", "No such file or directory", "Permission denied",
          "is a directory", "file is too large")  # fmt: skip
_OK_EDIT = ("ok", "The file {f} has been updated.", "Successfully replaced text in {f}.", "Edit applied successfully.",
            "1 replacement made", "")  # fmt: skip
_OK_WRITE = ("ok", "File created successfully at: {f}", "Wrote file successfully.", "Successfully wrote to {f}", "")
_TESTS = ("cargo test", "pytest", "npm test", "make test", "python -m pytest -q", "go test ./...", "just test", "make check")


class Agent:
    """A conversation's tools, files and call counter. Every episode returns a list of messages."""

    def __init__(self, rng: random.Random, split: str, space: float):
        self.rng, self.split = rng, split
        self.kit = kits.Kit(rng, space)
        self.calls = 0
        # Lines in a tool result: the long ones only where the conversation has room for several.
        self.most = max(5, min(60, int(space / 150)))
        self.numbering = rng.choice(_NUMBERINGS) if rng.random() < 0.5 else ""
        self.root = "" if rng.random() < 0.75 else f"/{rng.choice(('home', 'tmp', 'work'))}/{w.nonsense(rng, split)}/"
        self.expected: list = []

    def openai(self, wordy: int) -> list:
        """The tools as the client sends them."""
        tools = self.kit.tools
        return clutter.dress(self.rng, tools, wordy) if wordy and self.rng.random() < 0.6 else tools

    # Parts of an episode.

    def _stem(self) -> str:
        return self.rng.choice(w.NOUNS) if self.rng.random() < 0.6 else w.nonsense(self.rng, self.split)

    def _folder(self) -> str:
        return self.root + (self.rng.choice(_FOLDERS) if self.rng.random() < 0.7 else self._stem())

    def _path(self) -> str:
        place = self.root if self.rng.random() < 0.35 else self._folder() + "/"
        return f"{place}{self._stem()}.{self.rng.choice(_SORTS)}"

    def _file(self, path: str | None = None) -> File:
        size = self.rng.randint(2, 8) if self.rng.random() < 0.5 else self.rng.randint(5, self.most)
        while True:
            file = File(self.rng, self.split, path or self._path(), size)
            if file.rows:
                return file

    def _step(self, think: str, *calls: tuple) -> dict:
        """An assistant message with one or more calls."""
        made = []
        for name, arguments in calls:
            self.calls += 1
            function = {"name": name, "arguments": _dumps(arguments)}
            made.append({"id": f"call_{self.calls}", "type": "function", "function": function})
        return {"role": "assistant", "content": "", "reasoning_content": think, "tool_calls": made}

    @staticmethod
    def _back(step: dict, *bodies: str) -> list:
        """The step and its results."""
        results = [{"role": "tool", "tool_call_id": call["id"], "content": body}
                   for call, body in zip(step["tool_calls"], bodies, strict=True)]  # fmt: skip
        return [step, *results]

    def _end(self, think: str, answer: str, *wanted: str) -> dict:
        self.expected = list(wanted)
        return {"role": "assistant", "content": answer, "reasoning_content": think}

    def _user(self, *texts: str, **fields) -> dict:
        return {"role": "user", "content": self.rng.choice(texts).format(**fields)}

    def _row(self, file: File) -> tuple:
        key = self.rng.choice(list(file.rows))
        return (key, *file.rows[key])

    # Episodes.

    def read_value(self) -> list:
        """One value of a file, then perhaps another one without a call."""
        file = self._file()
        key, value, _ = self._row(file)
        messages = [
            self._user("Read {f} and tell me what {k} is.", "What is {k} in {f}?", "read {f}, what is {k}?",
                       "Look into {f} and tell me the value of {k}.", "What is the value of {k} in {f}?",
                       "Which {k} is set in {f}?", "check {k} in {f}", "Open {f}. What is {k}?", f=file.path, k=key),
            *self._back(self._step(f"The user wants {key} from {file.path}. I read it.", self.kit.read(file.path)),
                        file.shown(self.numbering)),
            self._end(f"The file says {key}: {value}.", f"{key} is {value}.", value),
        ]  # fmt: skip
        if len(file.rows) > 1 and self.rng.random() < 0.4:
            other, found, _ = self._row(file)
            messages += [self._user("And {k}?", "What is {k}?", "and what about {k}?", k=other),
                         self._end(f"The file says {other}: {found}.", f"{other} is {found}.", found)]  # fmt: skip
        return messages

    def read_two(self) -> list:
        """Two files in parallel, one value of each."""
        one, two = self._file(), self._file()
        if one.path == two.path:
            return self.read_value()
        (a, x, _), (b, y, _) = self._row(one), self._row(two)
        think = f"The user wants values from two files. I read {one.path} and {two.path}."
        return [
            self._user("What is {a} in {f} and {b} in {g}?", "Read {f} and {g}. Tell me {a} and {b}.", a=a, b=b,
                       f=one.path, g=two.path),
            *self._back(self._step(think, self.kit.read(one.path), self.kit.read(two.path)), one.shown(self.numbering),
                        two.shown(self.numbering)),
            self._end(f"{a}: {x}. {b}: {y}.", f"{a} is {x} and {b} is {y}.", x, y),
        ]  # fmt: skip

    def _listing(self, folder: str) -> tuple:
        """Distinct file names and how the tool shows them."""
        rng = self.rng
        count = rng.randint(2, max(5, self.most // 2))
        names = list(dict.fromkeys(f"{self._stem()}.{rng.choice(_SORTS)}" for _ in range(count)))
        style = rng.random()
        if style < 0.55:
            return names, "\n".join(names)
        if style < 0.75:
            return names, "\n".join(f"{folder}/{name}" for name in names)
        if style < 0.9:
            return names, f"{folder}/\n" + "\n".join("  " + name for name in names)
        return names, "\n".join(f"-rw-r--r-- 1 user user {rng.randint(10, 9999)} {name}" for name in names)

    def list_read(self) -> list:
        """The files of a folder, then one of them by a part of its name."""
        folder = self._folder()
        names, shown = self._listing(folder)
        stems = [name.split(".")[0] for name in names]
        name = self.rng.choice(names)
        stem, sort = name.split(".")
        if sum(other.endswith("." + sort) for other in names) == 1 and self.rng.random() < 0.5:
            which = self.rng.choice(("that ends with .{}", "with the ending .{}", "of type .{}")).format(sort)
        elif sum(stem in other for other in stems) == 1:
            which = self.rng.choice(("that has {} in its name", "called {}", "named {}", "that starts with {}")).format(stem)
        else:
            return self.read_value()
        file = self._file(f"{folder}/{name}")
        key, value, _ = self._row(file)
        return [
            self._user("List the files in {d} and read the one {w}. What is {k}?", "Look in {d}, read the file {w} and tell "
                       "me {k}.", "Find the file in {d} {w}. What is {k} there?", d=folder, w=which, k=key),
            *self._back(self._step(f"First I list {folder}.", self.kit.list(folder)), shown),
            *self._back(self._step(f"The file {which} is {name}. I read it.", self.kit.read(file.path)),
                        file.shown(self.numbering)),
            self._end(f"The file says {key}: {value}.", f"{key} is {value}.", value),
        ]  # fmt: skip

    def edit(self) -> list:
        """A replacement that the user spells out; sometimes it fails, sometimes in two files at once."""
        rng = self.rng
        if not self.kit.can_edit:
            return self.run_tests()
        path = self._path()
        old, new = (schemas.phrase(rng) if rng.random() < 0.4 else self._line() for _ in "ab")
        if old == new:
            return self.read_value()
        user = self._user('Replace "{o}" by "{n}" in {f}.', "In {f}, change `{o}` to `{n}`.", 'In {f} replace "{o}" with '
                          '"{n}"', "Change `{o}` into `{n}` in the file {f}.", "replace `{o}` by `{n}` in {f}", o=old,
                          n=new, f=path)  # fmt: skip
        step = self._step(f"The user wants a replacement in {path}. I edit it.", self.kit.edit(path, old, new))
        if rng.random() < 0.15:
            return [user, *self._fail(step, rng.choice(("old text not found in file", "String to replace not found in "
                                                        "file.", *_FAILS)))]  # fmt: skip
        body = rng.choice(_OK_EDIT).format(f=path)
        return [user, *self._back(step, body), self._end("The edit is done.", "Done.", "Done")]

    def _fail(self, step: dict, reason: str) -> list:
        body = self.rng.choice(("Error: {}", "<tool_use_error>{}</tool_use_error>", "error: {}", "{}")).format(reason)
        if "{}" not in body and body == reason:
            body = f"Error: {reason}"
        bare = reason.rstrip(".")
        return [*self._back(step, body),
                self._end("The result is an error. I report it.", f"The tool reported an error: {bare}.", bare)]  # fmt: skip

    def set_value(self) -> list:
        """Read, change one line, perhaps run the tests."""
        rng = self.rng
        if not self.kit.can_edit:
            return self.read_value()
        file = self._file()
        key, value, line = self._row(file)
        new = _plain_value(rng, self.split)
        if value not in line or new == value or line.count(value) != 1 or file.lines.count(line) != 1:
            return self.read_value()
        changed = line.replace(value, new)
        if '"' in line and not line.startswith('  "'):
            changed = line.replace(f'"{value}"', _value_text(new, True))
        elif '"' in line or "= " in line and line.endswith(";"):
            return self.read_value()
        testing = rng.random() < 0.3
        command = rng.choice(_TESTS)
        tail = rng.choice((f" Then run {command}.", f" and run `{command}`")) if testing else rng.choice((".", ""))
        user = self._user("Set {k} to {n} in {f}", "In {f}, set {k} to {n}", "Read {f} and change {k} from {o} to {n}",
                          "Change {k} in {f} to {n}", k=key, n=new, f=file.path, o=value)  # fmt: skip
        user["content"] += "." + tail if tail[:6] == " Then " else tail
        messages = [
            user,
            *self._back(self._step(f"I read {file.path} first.", self.kit.read(file.path)), file.shown(self.numbering)),
            *self._back(self._step(f"The line is {line.strip()}. I change it.",
                                   self.kit.edit(file.path, line.strip(), changed.strip())),
                        rng.choice(_OK_EDIT).format(f=file.path)),
        ]  # fmt: skip
        if testing:
            return messages + self._tests(command, f"The edit is done. Now I run {command}.")
        return [*messages, self._end("The edit is done.", f"Done. {key} is now {new}.", key, new)]

    def _tests(self, command: str, think: str) -> list:
        """The call of a test command, its output and the report."""
        rng = self.rng
        passed, failed = rng.randint(1, 99), rng.choice((0, 0, 0, 1, 1, 2, 3, 7))
        names = [w.nonsense(rng, self.split) + rng.choice(("_works", "_test", "_ok", "_" + rng.choice(w.NOUNS)))
                 for _ in range(rng.randint(2, max(3, self.most // 3)))]  # fmt: skip
        broken = set(names[: min(failed, 3)])
        rng.shuffle(names)
        if "cargo" in command or rng.random() < 0.3:
            lines = [f"test {name} ... {'FAILED' if name in broken else 'ok'}" for name in names]
            lines += ["", f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; 0 ignored"]
        elif "py" in command or rng.random() < 0.5:
            lines = [f"FAILED tests/{name}.py" if name in broken else f"tests/{name}.py ...." for name in names]
            lines += [(f"{failed} failed, " if failed else "") + f"{passed} passed in {rng.randint(1, 99) / 10}s"]
        else:
            lines = [f"{'not ok' if name in broken else 'ok'} {i} - {name}" for i, name in enumerate(names, 1)]
            lines += [f"# pass {passed}", f"# fail {failed}"]
        report = f"{failed} failed, {passed} passed." if failed else f"All {passed} tests passed."
        messages = [*self._back(self._step(think, self.kit.run(command)), "\n".join(lines)),
                    self._end(f"{passed} passed, {failed} failed.", report, str(passed), *([str(failed)] * bool(failed)))]  # fmt: skip
        if len(broken) == 1 and failed == 1 and rng.random() < 0.5:
            name = next(iter(broken))
            messages += [self._user("Which test failed?", "which one failed?", "What failed?"),
                         self._end(f"The output says {name} failed.", f"The test {name} failed.", name)]  # fmt: skip
        return messages

    def run_tests(self) -> list:
        """A test command and what it reports; without a named command it is `make test`."""
        command = self.rng.choice(_TESTS)
        if self.rng.random() < 0.25:
            command = "make test"
            user = self._user("Run the tests.", "run the tests", "Do the tests pass?", "Please run the tests.")
        else:
            user = self._user("Run {c}.", "Run the tests with `{c}`.", "run {c} and tell me the result", "Run `{c}`. Do all "
                              "tests pass?", c=command)  # fmt: skip
        return [user, *self._tests(command, f"I run {command}.")]

    def _line(self) -> str:
        """A line of code or text, with the marks that are hard to copy."""
        rng = self.rng
        a, b, n = self._stem(), rng.choice(w.NOUNS), rng.randint(0, 99)
        return rng.choice((
            f"{a} = {n}", f"let {a} = {b}({n});", f'print("{a}: {{{b}}}")', f"{a}.{b}({n})", f"if {a} > {n}:", f"return {a};",
            f"{a}['{b}'] = {n}", f"<{b}>{a}</{b}>", f"{a}\\n{b}", f"const {a}: u{n} = {n};", f"# {b} {a}", f"{a}: {b}",
            f"{a} && {b} || {n}", f"fn {a}({b}: &str) -> usize {{", "}", f"    {a} += {n}", f"println!(\"{{}}\", {a});",
        ))  # fmt: skip

    def _snippet(self) -> str:
        """Two to eight lines of code or text, without space at either end."""
        rng = self.rng
        a, b, n = self._stem(), rng.choice(w.NOUNS), rng.randint(0, 99)
        style = rng.random()
        if style < 0.45:
            return rng.choice((
                f'fn main() {{\n    println!("{a} {{}}", {n});\n}}', f'def {a}(x):\n    """The {b}."""\n    return x + {n}',
                f'{{\n  "{a}": "{b}",\n  "size": {n}\n}}', f"#!/bin/sh\necho \"{a}\"\nexit {n}",
                f"<html>\n  <body>{a}</body>\n</html>", f'const {a} = () => {{\n  return "{b}\\n";\n}};',
                f"[{a}]\n{b} = {n}\npath = \"C:\\\\{b}\"", f"# {b.capitalize()}\n\n- {a}\n- {n}\n",
                f"for {a} in range({n}):\n    if {a} == {rng.randint(0, 9)}:\n        print('{b}')",
                f"int main(void) {{\n    printf(\"{a}\\n\");\n    return {n};\n}}", f"{a},{b}\n{n},{rng.randint(0, 99)}",
            )).strip()  # fmt: skip
        return "\n".join(self._line() for _ in range(rng.randint(2, 8))).strip()

    def create(self) -> list:
        """A file with given content, copied exactly."""
        rng = self.rng
        if not self.kit.can_write:
            return self.run_output()
        path, body = self._path(), self._snippet()
        if rng.random() < 0.25:
            body = self._line().strip()
        fence = rng.choice(("```", "```", "```" + path.rsplit(".", 1)[-1]))
        user = {"role": "user", "content": rng.choice((
            f"Create {path} with this content:\n{fence}\n{body}\n```", f"Write this to {path}:\n\n{fence}\n{body}\n```",
            f"Create the file {path}:\n{fence}\n{body}\n```", f"Make a file {path} with the content:\n{body}",
            f"Save this as {path}:\n{body}", f"{fence}\n{body}\n```\nWrite this into {path}.",
        ))}  # fmt: skip
        step = self._step(f"The user wants the file {path}. I write it.", self.kit.write(path, body))
        if rng.random() < 0.1:
            return [user, *self._fail(step, rng.choice(("Permission denied", "disk full", "Read-only file system")))]
        messages = [user, *self._back(step, rng.choice(_OK_WRITE).format(f=path)), self._end("The file is written.", "Done.",
                                                                                           "Done")]  # fmt: skip
        return messages

    def copy_value(self) -> list:
        """A value of one file goes into another one."""
        if not self.kit.can_write:
            return self.read_value()
        file, path = self._file(), self._path()
        key, value, _ = self._row(file)
        return [
            self._user("Read {f} and write the value of {k} to {g}.", "Take {k} from {f} and save it as {g}.",
                       "Put the value of {k} in {f} into the file {g}", f=file.path, k=key, g=path),
            *self._back(self._step(f"I read {file.path} first.", self.kit.read(file.path)), file.shown(self.numbering)),
            *self._back(self._step(f"{key} is {value}. I write it to {path}.", self.kit.write(path, value)),
                        self.rng.choice(_OK_WRITE).format(f=path)),
            self._end("The file is written.", f"Done. {path} now says {value}.", value),
        ]  # fmt: skip

    def search(self) -> list:
        """Where a text stands; perhaps then a value from that file."""
        rng = self.rng
        word, folder = w.nonsense(rng, self.split), self._folder()
        hits = rng.choice((0, 1, 1, 1, 1, 2, 3))
        paths = list(dict.fromkeys(f"{folder}/{self._stem()}.{rng.choice(_SORTS)}" for _ in range(hits)))
        numbers = [rng.randint(1, 300) for _ in paths]
        shown = "\n".join(f"{p}:{n}: {rng.choice(('let ', 'def ', '', '# ', 'call '))}{word}" for p, n in
                          zip(paths, numbers, strict=True)) or rng.choice(("No matches found", "", "No files found"))  # fmt: skip
        step = self._back(self._step(f"I search for {word} in {folder}.", self.kit.grep(word, folder)), shown)
        if len(paths) == 1 and rng.random() < 0.4:
            file = self._file(paths[0])
            key, value, _ = self._row(file)
            return [
                self._user("Find the file in {d} that has {x} and tell me what {k} is in it.", "Search {d} for {x}, read that "
                           "file. What is {k}?", "Which file in {d} mentions {x}? Read it and tell me {k}.", d=folder,
                           x=word, k=key),
                *step,
                *self._back(self._step(f"It is {file.path}. I read it.", self.kit.read(file.path)),
                            file.shown(self.numbering)),
                self._end(f"The file says {key}: {value}.", f"{key} is {value}.", value),
            ]  # fmt: skip
        user = self._user("Where is {x} in {d}?", "Search for {x} in {d}.", "Find {x} in {d}", "Which files in {d} mention {x}?",
                          "grep for {x} in {d}", "Where is {x} defined? Look in {d}.", x=word, d=folder)  # fmt: skip
        if not paths:
            return [user, *step, self._end("Nothing was found.", f"I did not find {word}.", "did not find")]
        places = [f"{p}, line {n}" for p, n in zip(paths, numbers, strict=True)]
        return [user, *step, self._end("The result is here. I tell it.", f"{word} is in {listing(places)}.", *paths)]

    def missing_file(self) -> list:
        """A file that is not there; a suggested name is tried once."""
        rng = self.rng
        path = self._path()
        file = self._file()
        key, value, _ = self._row(file)
        user = self._user("Read {f} and tell me what {k} is.", "What is {k} in {f}?", "Open {f}. What is {k}?", f=path, k=key)
        step = self._step(f"The user wants {key} from {path}. I read it.", self.kit.read(path))
        if rng.random() < 0.5 or path == file.path:
            return [user, *self._fail(step, rng.choice(_FAILS))]
        body = f"{rng.choice(('Error: ', ''))}{rng.choice(_FAILS[:3])} Did you mean {file.path}?"
        return [
            user,
            *self._back(step, body),
            *self._back(
                self._step(f"The file is not there. I try {file.path}.", self.kit.read(file.path)),
                file.shown(self.numbering),
            ),
            self._end(f"The file says {key}: {value}.", f"{key} is {value}.", value),
        ]

    def run_output(self) -> list:
        """A command whose output answers the question."""
        rng = self.rng
        a, b, n = w.nonsense(rng, self.split), rng.choice(w.NOUNS), rng.randint(2, 99)
        style = rng.randrange(4)
        if style == 0:
            command, asked = "git status", ("Which branch am I on?", "Tell me the branch.", "What is the branch?")
            found = rng.choice(("main", a, f"{b}-{n}"))
            body, answer = f"On branch {found}\n" + rng.choice((
                "nothing to commit, working tree clean", f"Changes not staged for commit:\n\tmodified:   {b}.rs")), "The branch is {}."
        elif style == 1:
            command = rng.choice(("git log --oneline", f"git log --oneline -n {n}"))
            asked = ("What is the last commit?", "Tell me the last commit.", "Which commit is the newest?")
            rows = [(f"{rng.randrange(16**7):07x}", schemas.phrase(rng)) for _ in range(rng.randint(2, max(3, self.most // 3)))]
            body, found = "\n".join(" ".join(row) for row in rows), rows[0][1]
            answer = "The last commit is: {}."
        elif style == 2:
            file = self._path()
            command, asked = f"wc -l {file}", ("How many lines does it have?", "How many lines?", "Tell me the number of lines.")
            body, found, answer = f"{n} {file}", str(n), "It has {} lines."
        else:
            command, asked = f"{b} --version", ("Which version is it?", "What is the version?", "Tell me the version.")
            found = f"{rng.randint(0, 9)}.{rng.randint(0, 30)}.{rng.randint(0, 9)}"
            body, answer = rng.choice((f"{b} {found}", f"{b} version {found}", found)), "The version is {}."
        return [
            self._user("Run {c}. {q}", "Run `{c}`. {q}", "run `{c}`. {q}", "Use {c}. {q}", c=command, q=rng.choice(asked)),
            *self._back(self._step(f"I run {command}.", self.kit.run(command)), body),
            self._end(f"The output says {found}.", answer.format(found), found),
        ]

    def names(self) -> list:
        """The files of a folder or of a pattern, nothing more."""
        rng = self.rng
        folder = self._folder()
        names = list(dict.fromkeys(f"{self._stem()}.{rng.choice(_SORTS)}" for _ in range(rng.randint(1, 5))))
        pattern = f"**/*.{names[0].split('.')[1]}"
        call = self.kit.glob(pattern) if rng.random() < 0.5 else None
        if call:
            names = [f"{folder}/{name.split('.')[0]}.{pattern[5:]}" for name in names]
            names = list(dict.fromkeys(names))
            user = self._user("Find all files that match {p}.", "Which files match {p}?", "glob {p}", p=pattern)
        else:
            call = self.kit.list(folder)
            user = self._user("List the files in {d}.", "What is in {d}?", "Which files are in {d}?", "ls {d}", d=folder)
        return [user, *self._back(self._step("The user wants the file names.", call), "\n".join(names)),
                self._end("The result is here. I tell it.", f"The files are: {', '.join(names)}.", *names)]  # fmt: skip

    def episode(self) -> list:
        """One request with all its calls and the answer. `expected` then holds what the answer must contain."""
        return getattr(self, self.rng.choice(_EPISODES))()


_EPISODES = (
    "read_value read_value read_value list_read list_read edit edit set_value set_value set_value run_tests run_tests "
    "create create create copy_value search search missing_file run_output names read_two"
).split()
