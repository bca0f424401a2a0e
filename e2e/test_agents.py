"""Every coding agent, set up as docs/clients.md says: two requests with a shell command between them, a slow prompt, overflow,
an end in the middle. Runs with E2E=1 only: the installs take 1.6 GB."""

import json
import os
import tempfile
import time

import pytest

from agents import AGENTS, CLAUDE, OPENCODE, ended, kill, run
from recorder import Recorder
from scripts import COMMAND, MARK, check_no_markup, tool_rules
from server import Server

pytestmark = pytest.mark.skipif(os.environ.get("E2E") != "1", reason="E2E=1 installs and runs the coding agents")

each_agent = pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)

PROMPT = "Run the command and tell me what it says."
TITLE = {"anywhere": "title generator", "reply": "Saying the mark"}


def rules(agent, **more):
    first, second = tool_rules(agent.tool, **{agent.command: COMMAND}, **agent.more)
    return [TITLE, first, second | more, {"reply": "I do not know that."}]


def is_side_request(exchange):
    return b"title generator" in exchange.request


def check_session(agent, recorder, server, shown):
    """Assertions 1 to 3 of a session with one command."""
    code, out, err = shown
    assert code == 0, f"{out}\n{err}"
    assert f"The tool said: " in out and MARK in out, f"{out}\n{err}"
    check_no_markup(out)
    asked = [exchange for exchange in recorder.asked() if not is_side_request(exchange)]
    assert [exchange.status for exchange in recorder.exchanges if exchange.status >= 400] == [], [
        (exchange.path, exchange.status, exchange.answer) for exchange in recorder.exchanges
    ]
    assert len(asked) == 2, [exchange.request[:200] for exchange in asked]
    assert MARK.encode() in asked[1].request
    for exchange in asked:
        for value in exchange.objects():
            check_no_markup(json.dumps(value, ensure_ascii=False))
    first, second = (exchange.usage() for exchange in asked)
    assert second[2] >= 0.95 * (first[0] + first[1]), (first, second)
    assert not server.refused()


@each_agent
def test_a_session_with_a_command(agent):
    with Server(rules(agent)) as server, Recorder(server.port) as recorder:
        shown = run(agent, recorder.url, PROMPT)
        check_session(agent, recorder, server, shown)
        server.wait_idle()


def test_two_agents_take_turns():
    both = [CLAUDE, OPENCODE]
    script = [TITLE, tool_rules("", x="")[0]]
    for agent in both:
        # Each knows its own tool only.
        answer = tool_rules(agent.tool, **{agent.command: COMMAND}, **agent.more)[1]
        script.append(answer | {"anywhere": {"claude": "Claude Code", "opencode": "opencode"}[agent.name], "tokens_per_second": 20})
    with Server(script) as server, tempfile.TemporaryDirectory() as folder:
        running = []
        for agent in both:
            recorder = Recorder(server.port).__enter__()
            place = os.path.join(folder, agent.name)
            os.mkdir(place)
            running.append((agent, recorder, agent.start(recorder.url, PROMPT, place)))
        for agent, recorder, process in running:
            check_session(agent, recorder, server, ended(process, 120))
            recorder.__exit__()


@pytest.mark.parametrize("seconds", [60])
def test_a_slow_prompt_is_waited_for(seconds):
    """All at once, each with a server of its own."""
    servers, running = [], []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for agent in AGENTS:
                server = Server(rules(agent, stall_ms=seconds * 1000)).__enter__()
                recorder = Recorder(server.port).__enter__()
                servers += [recorder, server]
                place = os.path.join(folder, agent.name)
                os.mkdir(place)
                running.append((agent, recorder, server, agent.start(recorder.url, PROMPT, place), time.monotonic()))
            for agent, recorder, server, process, started in running:
                check_session(agent, recorder, server, ended(process, seconds + 120))
                assert time.monotonic() - started >= seconds
        finally:
            for _, _, _, process, _ in running:
                kill(process)
            for thing in servers:
                thing.__exit__()


# What shows that each knows what happened: its own words, or that it asks for a summary of what was said.
OVERFLOW = {
    "codex": ["ran out of room"],
    "opencode": ["ContextOverflowError", "agent=compaction"],
    "claude": ["prompt_too_long"],
    "pi-ds4": ["context summarization assistant"],
    "pi-ds4-responses": ["context summarization assistant"],
    "pi-ds4-messages": ["context summarization assistant"],
}


@each_agent
def test_overflow_is_reported_as_such(agent):
    with Server(rules(agent), ctx=512) as server, Recorder(server.port) as recorder:
        _, out, err = run(agent, recorder.url, PROMPT)
        asked = recorder.asked()
        assert asked[0].status == 400 and len(asked) <= 4, [exchange.status for exchange in asked]
        said = out + err + "".join(exchange.request.decode() for exchange in asked[1:])
        assert any(text in said for text in OVERFLOW[agent.name]), said[-3000:]


@each_agent
def test_an_agent_that_is_killed_frees_its_slots(agent):
    long = {"when": "Run the command", "reply": " ".join(str(n) for n in range(2000)), "tokens_per_second": 20}
    with Server([TITLE, long]) as server, tempfile.TemporaryDirectory() as folder:
        process = agent.start(server.url, PROMPT, folder)
        try:
            server.wait(lambda: server.busy() > 0, 60, "busy")
            time.sleep(1)
            assert server.busy() > 0
        finally:
            kill(process)
            process.communicate()
        server.wait_idle()
