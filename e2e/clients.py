"""The SDK drivers: which there are, how they are run, what they report."""

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Client:
    name: str
    driver: str
    options: tuple = ()
    # Some clients drop reasoning, and so cannot be asked for it.
    reasoning: bool = True
    stop: str = "stop"

    def argv(self):
        if self.driver.endswith(".mjs"):
            return ["node", str(node_folder() / self.driver)]
        venv = os.environ["DS4_E2E_LITELLM" if self.driver.startswith("litellm") else "DS4_E2E_SDK"]
        return [f"{venv}/bin/python", str(HERE / "drivers" / self.driver)]

    @contextmanager
    def running(self, command, cwd=None, **order):
        """A running driver: one line of JSON comes out, the end of its input ends it. It does not outlive the test."""
        order = {"command": command, **order, **dict(self.options)}
        env = {name: os.environ[name] for name in ["PATH", "HOME"]}
        env["LANG"] = "C.UTF-8"
        process = subprocess.Popen(
            [*self.argv(), json.dumps(order)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=cwd
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def run(self, command, **order):
        with self.running(command, **order) as process:
            out, _ = process.communicate(timeout=90)
            assert process.returncode == 0, process.returncode
            return json.loads(out)


@cache
def node_folder():
    """Modules are found beside the drivers, so these go where the packages are."""
    folder = Path(os.environ["DS4_E2E_NODE"])
    for driver in (HERE / "node").glob("*.mjs"):
        shutil.copy(driver, folder)
    return folder


OPENAI_CHAT = Client("openai-python-chat", "openai_chat.py")
OPENAI_RESPONSES = Client("openai-python-responses", "openai_responses.py", stop="completed")
ANTHROPIC = Client("anthropic-python", "anthropic_messages.py", stop="end_turn")
LANGCHAIN = Client("langchain-python", "langchain_chat.py", reasoning=False)
AI_SDK = Client("ai-sdk", "ai_sdk.mjs")

CLIENTS = [
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    ANTHROPIC,
    LANGCHAIN,
    Client("litellm-openai", "litellm_any.py", (("provider", "openai"),)),
    Client("litellm-anthropic", "litellm_any.py", (("provider", "anthropic"),)),
    Client("openai-node-chat", "openai_chat.mjs"),
    Client("openai-node-responses", "openai_responses.mjs", stop="completed"),
    Client("anthropic-node", "anthropic_messages.mjs", stop="end_turn"),
    AI_SDK,
    Client("langchain-node", "langchain_chat.mjs", reasoning=False),
]
