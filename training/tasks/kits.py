"""The tool sets of coding agents: names and parameter names as known clients send them, and how each does a task."""

import random

_S, _I, _B = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}


def _text(description: str) -> dict:
    return {"type": "string", "description": description}


def _tool(name: str, description: str, properties: dict, required: list) -> dict:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


# Operation: (tool name, parameter names in call order, tool). A kit lacks what its client does not have.
_CLAUDE = {
    "read": ("Read", ("file_path",), _tool("Read", "Reads a file from the local filesystem.",
             {"file_path": _text("The absolute path to the file to read"), "offset": {"type": "number"},
              "limit": {"type": "number", "description": "The number of lines to read."}}, ["file_path"])),
    "write": ("Write", ("file_path", "content"), _tool("Write", "Writes a file to the local filesystem.",
              {"file_path": _text("The path of the file to write"), "content": _text("The content of the file")},
              ["file_path", "content"])),
    "edit": ("Edit", ("file_path", "old_string", "new_string"), _tool("Edit", "Replaces exact strings in files.",
             {"file_path": _text("The path of the file to change"), "old_string": _text("The text to replace"),
              "new_string": _text("The text to replace it with"), "replace_all": {"type": "boolean", "default": False}},
             ["file_path", "old_string", "new_string"])),
    "run": ("Bash", ("command",), _tool("Bash", "Executes a bash command and returns its output.",
            {"command": _text("The command to execute"), "timeout": {"type": "number"},
             "description": _text("What the command does, in a few words")}, ["command"])),
    "glob": ("Glob", ("pattern",), _tool("Glob", "Finds files by a name pattern like **/*.js.",
             {"pattern": _text("The pattern to match files against"), "path": _S}, ["pattern"])),
    "grep": ("Grep", ("pattern", "path"), _tool("Grep", "Searches file contents with a regular expression.",
             {"pattern": _text("The expression to search for"), "path": _text("File or directory to search in"),
              "output_mode": {"type": "string", "enum": ["content", "files_with_matches", "count"]}}, ["pattern"])),
}  # fmt: skip
_OPENCODE = {
    "read": ("read", ("filePath",), _tool("read", "Reads a file.",
             {"filePath": _text("The path to the file to read"), "offset": _I, "limit": _I}, ["filePath"])),
    "write": ("write", ("content", "filePath"), _tool("write", "Writes a file.",
              {"content": _text("The content to write to the file"), "filePath": _text("The path to the file")},
              ["content", "filePath"])),
    "edit": ("edit", ("filePath", "oldString", "newString"), _tool("edit", "Performs exact string replacements in files.",
             {"filePath": _text("The path to the file"), "oldString": _text("The text to replace"),
              "newString": _text("The text to replace it with"), "replaceAll": _B},
             ["filePath", "oldString", "newString"])),
    "run": ("bash", ("command", "description"), _tool("bash", "Executes a bash command.",
            {"command": _text("The command to execute"), "timeout": _I,
             "description": _text("What this command does in 5 to 10 words")}, ["command", "description"])),
    "glob": ("glob", ("pattern",), _tool("glob", "Finds files by a pattern.", {"pattern": _S, "path": _S}, ["pattern"])),
    "grep": ("grep", ("pattern", "path"), _tool("grep", "Searches file contents.",
             {"pattern": _text("The regex to search for"), "path": _S, "include": _S}, ["pattern"])),
    "list": ("list", ("path",), _tool("list", "Lists files and folders.", {"path": _S}, ["path"])),
}  # fmt: skip
_PI = {
    "read": ("read", ("path",), _tool("read", "Read the contents of a file.",
             {"path": _text("Path to the file"), "offset": _I, "limit": _I}, ["path"])),
    "run": ("bash", ("command",), _tool("bash", "Execute a bash command in the working directory.",
            {"command": _text("Bash command to execute"), "timeout": _I}, ["command"])),
    "edit": ("edit", ("path", "oldText", "newText"), _tool("edit", "Edit a file by replacing exact text.",
             {"path": _S, "oldText": _text("Exact text to find"), "newText": _text("New text")},
             ["path", "oldText", "newText"])),
    "write": ("write", ("path", "content"), _tool("write", "Write content to a file.",
              {"path": _S, "content": _S}, ["path", "content"])),
}  # fmt: skip
_CODEX = {
    "run": ("shell", ("command",), _tool("shell", "Runs a shell command and returns its output.",
            {"command": {"type": "array", "items": {"type": "string"}, "description": "The command to execute"},
             "workdir": _text("The working directory"), "timeout_ms": _I}, ["command"])),
}  # fmt: skip
_OTHER = (
    _tool("TodoWrite", "Keeps a list of tasks.", {"todos": {"type": "array", "items": {"type": "string"}}}, ["todos"]),
    _tool("WebFetch", "Fetches a web page.", {"url": _S, "prompt": _S}, ["url", "prompt"]),
    _tool("update_plan", "Updates the task plan.", {"plan": {"type": "array", "items": {"type": "string"}}}, ["plan"]),
    _tool("Task", "Starts another agent.", {"description": _S, "prompt": _S, "subagent_type": _S},
          ["description", "prompt", "subagent_type"]),
    _tool("webfetch", "Gets a page from the web.", {"url": _S, "format": {"type": "string", "enum": ["text", "html"]}},
          ["url"]),
    _tool("ask_user", "Asks the user a question.", {"question": _S}, ["question"]),
    _tool("view_image", "Shows an image to the model.", {"image": _S}, ["image"]),
)  # fmt: skip


def _generic(rng: random.Random) -> dict:
    pick = rng.choice
    file, folder = pick(("path", "file", "filename", "file_path", "target_file")), pick(("path", "dir", "directory"))
    old, new = pick((("old", "new"), ("old_text", "new_text"), ("search", "replace"), ("old_str", "new_str")))
    text, command = pick(("content", "text", "contents")), pick(("command", "cmd", "command"))
    what = pick(("pattern", "query", "regex"))
    names = {"read": pick(("read_file", "view_file", "open_file", "cat")), "write": pick(("write_file", "create_file", "save")),
             "edit": pick(("edit_file", "replace_in_file", "replace", "str_replace")),
             "run": pick(("run_command", "execute_command", "run_terminal_cmd", "exec", "terminal")),
             "list": pick(("list_files", "list_dir", "ls", "list_directory")),
             "grep": pick(("search_files", "grep_search", "search", "search_file_content"))}  # fmt: skip
    rows = {"read": ("Read a file.", (file,)), "write": ("Write a file.", (file, text)),
            "edit": ("Replace text in a file.", (file, old, new)), "run": ("Run a shell command.", (command,)),
            "list": ("List the files in a folder.", (folder,)),
            "grep": ("Search for text in files.", (what, folder))}  # fmt: skip
    return {
        op: (names[op], keys, _tool(names[op], described, {key: _S for key in keys}, list(keys)))
        for op, (described, keys) in rows.items()
    }


class Kit:
    """One client's tools. `read` ... `grep` give (name, arguments); a missing tool is replaced by a shell command."""

    def __init__(self, rng: random.Random, space: float):
        style = rng.random()
        if space < 1500:
            style = 0.45 + 0.55 * style
        ops = (_CLAUDE if style < 0.25 else _OPENCODE if style < 0.45 else _PI if style < 0.6
               else _CODEX if style < 0.7 else _generic(rng))  # fmt: skip
        self.ops = dict(ops)
        if style >= 0.7 or space < 4000:
            most = max(1, min(6, int(space / 700)))
            keys = list(self.ops)
            kept = {"run"} | set(rng.sample(keys, min(most, len(keys))))
            kept = kept if len(kept) <= most or most < 2 else kept - {rng.choice(sorted(kept - {"run"}))}
            self.ops = {op: row for op, row in self.ops.items() if op in kept}
        self.tools = [row[2] for row in self.ops.values()]
        if space > 3000 and rng.random() < 0.5:
            taken = {tool["function"]["name"] for tool in self.tools}
            others = [tool for tool in _OTHER if tool["function"]["name"] not in taken]
            self.tools = self.tools + rng.sample(others, rng.randint(1, 3))
        rng.shuffle(self.tools)
        self.can_edit, self.can_write = "edit" in self.ops, "write" in self.ops

    def _with(self, op: str, *values) -> tuple:
        name, keys, _ = self.ops[op]
        return name, dict(zip(keys, values, strict=False))

    def run(self, command: str) -> tuple:
        """A shell command in the client's form; a required description repeats the command."""
        name, keys, _ = self.ops["run"]
        if name == "shell":
            return name, {"command": ["bash", "-lc", command]}
        if "description" in keys:
            return name, {"command": command, "description": f"Run {command}"}
        return self._with("run", command)

    def read(self, file: str) -> tuple:
        """Reading a file."""
        return self._with("read", file) if "read" in self.ops else self.run(f"cat {file}")

    def list(self, folder: str) -> tuple:
        """The files of a folder."""
        return self._with("list", folder) if "list" in self.ops else self.run(f"ls {folder}")

    def grep(self, text: str, folder: str) -> tuple:
        """The lines that hold a text."""
        return self._with("grep", text, folder) if "grep" in self.ops else self.run(f"grep -rn {text} {folder}")

    def glob(self, pattern: str) -> tuple | None:
        """Files by a name pattern; None where the client has no such tool."""
        return self._with("glob", pattern) if "glob" in self.ops else None

    def write(self, file: str, content: str) -> tuple:
        """Writing a file; only where `can_write`."""
        name, keys, _ = self.ops["write"]
        return name, {key: content if key in ("content", "text", "contents") else file for key in keys}

    def edit(self, file: str, old: str, new: str) -> tuple:
        """Replacing a text; only where `can_edit`."""
        return self._with("edit", file, old, new)
