"""Checks `render.py` against the golden cases: `python training/test_render.py`. Exit status 1 on any difference."""

import json
import sys
from pathlib import Path

from render import render

CASES = Path(__file__).resolve().parent.parent / "fixtures" / "encoding" / "generated" / "render.jsonl"


def outcome(case: dict) -> str | None:
    """The rendered text, or None when the renderer refuses the case."""
    options = case["options"]
    try:
        return render(
            case["messages"],
            options["thinking_mode"],
            options.get("drop_thinking", True),
            options.get("reasoning_effort"),
            options.get("add_default_bos_token", True),
            case.get("context"),
        )
    except (AssertionError, TypeError, NotImplementedError, KeyError, AttributeError):
        return None


def main() -> int:
    """Compares every case; prints the differing ids."""
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").rstrip("\n").split("\n")]
    wrong = []
    for case in cases:
        if outcome(case) != case.get("expected"):
            wrong.append(f"{case['id']} {case['tag']} {case.get('note', '')}")
    print(f"{len(cases) - len(wrong)} of {len(cases)} cases agree")
    for line in wrong:
        print("  differs:", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
