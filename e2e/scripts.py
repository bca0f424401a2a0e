"""What the scripted model says, and what must never reach a user."""

COMMAND = "echo MARK-$((6*7))"
MARK = "MARK-42"
HELLO = "Hello, wörld! 🎈"
THOUGHT = "A greeting is due."


def call(tool, **parameters):
    """A tool call as the model writes it."""
    lines = [f'<｜DSML｜parameter name="{name}" string="true">{text}</｜DSML｜parameter>\n' for name, text in parameters.items()]
    return f'\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="{tool}">\n{"".join(lines)}</｜DSML｜invoke>\n</｜DSML｜tool_calls>'


def tool_rules(tool, **parameters):
    """Runs the tool for a prompt that asks for it, and repeats what the tool says: only a tool that ran says the mark."""
    return [
        {"when": "<tool_result>", "reply": "<think>The tool has answered.</think>The tool said: {turn}"},
        {"when": "Run the command", "reply": "<think>I need the tool.</think>One moment." + call(tool, **parameters)},
    ]


RULES = [
    *tool_rules("shell", command=COMMAND),
    {"when": "Count", "tokens_per_second": 20, "reply": " ".join(str(n) for n in range(1000))},
    {"when": "Say hello", "reply": f"<think>{THOUGHT}</think>{HELLO}"},
]

LONG = "word " * 6000


def check_no_markup(*texts):
    for text in texts:
        for markup in ["DSML", "<think>", "</think>", "<｜"]:
            assert markup not in (text or ""), f"{markup!r} is shown in {text!r}"
