"""The coding agents: set up with exactly the blocks of docs/clients.md, in an empty home, and run on one prompt."""

import os
import re
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs" / "clients.md"


def blocks():
    """The fenced blocks of the document that have a name."""
    found = re.findall(r"^```\w+ (\S+)\n(.*?)^```$", DOCS.read_text(), re.M | re.S)
    assert len({name for name, _ in found}) == len(found), "names are unique"
    return dict(found)


@dataclass(frozen=True)
class Agent:
    name: str
    # Names of blocks: files to lay down, and the commands to type.
    files: tuple
    shell: str
    # The last line of the commands, and what makes it answer one prompt.
    argv: tuple
    # The tool that runs commands, and the parameters it wants beside its command's.
    tool: str
    command: str
    more: dict = field(default_factory=dict)
    # What a test needs and a user does not: nobody is there to allow a command, and the home is gone after it.
    test_env: dict = field(default_factory=dict)
    asks: int = 2

    def start(self, server_url, prompt, folder, **options):
        home, work = Path(folder, "home"), Path(folder, "work")
        home.mkdir()
        work.mkdir()
        known = blocks()
        here = lambda text: text.replace("http://127.0.0.1:8000", server_url)
        for name in self.files:
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(here(known[name]))
        env = {
            "HOME": str(home),
            "PATH": os.environ["DS4_E2E_CLIS"] + "/node_modules/.bin:" + os.environ["PATH"],
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            **dict(re.findall(r"^export (\w+)=(.*)$", here(known[self.shell]), re.M)),
            **self.test_env,
        }
        return subprocess.Popen(
            [*self.argv, prompt],
            cwd=work,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )


def ended(process, seconds):
    """Exit code, standard output, standard error."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        out, err = process.communicate()
        raise AssertionError(f"not at its end after {seconds} s:\n{out}\n{err}") from None
    return process.returncode, out, err


def kill(process):
    """The agent and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run(agent, server_url, prompt, seconds=120):
    with tempfile.TemporaryDirectory(prefix="ds4-e2e-") as folder:
        return ended(agent.start(server_url, prompt, folder), seconds)


CODEX = Agent(
    name="codex",
    files=(".codex/config.toml",),
    shell="codex",
    argv=("codex", "exec", "--skip-git-repo-check", "--json", "--dangerously-bypass-approvals-and-sandbox"),
    tool="exec_command",
    command="cmd",
)
OPENCODE = Agent(
    name="opencode",
    files=(".config/opencode/opencode.json",),
    shell="opencode",
    argv=("opencode", "run", "--print-logs", "--format", "json"),
    tool="bash",
    command="command",
    more={"description": "Says the mark"},
    test_env={"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_PERMISSION": '{"bash":"allow"}'},
    asks=3,
)
CLAUDE = Agent(
    name="claude",
    files=(),
    shell="claude",
    argv=("claude", "--allowedTools=Bash(echo:*)", "--output-format", "json", "-p"),
    tool="Bash",
    command="command",
    more={"description": "Says the mark"},
    test_env={"IS_SANDBOX": "1"},
)


def pi(provider):
    return Agent(
        name="pi-" + provider,
        files=(".pi/agent/models.json",),
        shell="pi",
        argv=("pi", "-p", "--provider", provider, "--model", "deepseek-v4-flash"),
        tool="bash",
        command="command",
        test_env={"PI_OFFLINE": "1"},
    )


AGENTS = [CODEX, OPENCODE, CLAUDE, pi("ds4"), pi("ds4-responses"), pi("ds4-messages")]
