"""Every SDK: chat, streaming, a tool loop, cancelling, overflow; the script decides what the model says."""

import json
from contextlib import ExitStack

import pytest

from clients import AI_SDK, ANTHROPIC, CLIENTS, LANGCHAIN, OPENAI_CHAT, OPENAI_RESPONSES
from scripts import COMMAND, HELLO, LONG, MARK, RULES, THOUGHT, check_no_markup
from server import Server

SHELL = {
    "name": "shell",
    "description": "Runs a command.",
    "parameters": {
        "type": "object",
        "properties": {"command": {"type": "string"}},
        "required": ["command"],
        "additionalProperties": False,
    },
}

each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


def check_hello(client, seen):
    assert "error" not in seen, seen["error"]
    assert seen["text"] == HELLO
    assert seen["finish"] == client.stop
    if client.reasoning:
        assert seen["reasoning"] == THOUGHT
    [usage] = seen["usage"]
    assert usage["input"] > 5 and usage["output"] > 10, usage


@each_client
def test_chat(server, client):
    check_hello(client, client.run("chat", url=server.url, prompt="Say hello"))


@each_client
def test_stream(server, client):
    seen = client.run("stream", url=server.url, prompt="Say hello")
    check_hello(client, seen)
    assert seen["pieces"] > 5, seen


def check_tools(seen):
    assert "error" not in seen, seen["error"]
    assert seen["calls"] == [{"name": "shell", "arguments": {"command": COMMAND}}]
    assert seen["outputs"] == [MARK + "\n"]
    assert seen["text"].startswith("The tool said: ") and MARK in seen["text"], seen["text"]
    check_no_markup(seen["text"])
    first, second = seen["usage"]
    # The first prompt and the answer to it are there already.
    assert second["cached"] >= 0.95 * (first["input"] + first["output"]), seen["usage"]


@each_client
def test_a_tool_loop_reuses_the_prompt_and_the_call(client):
    with Server(RULES) as server:
        check_tools(client.run("tools", url=server.url, prompt="Run the command", tool=SHELL))
        assert not server.refused()


def test_clients_that_take_turns_keep_their_prompts():
    with Server(RULES, parallel=len(CLIENTS)) as server:
        with ExitStack() as stack:
            start = lambda i, client: client.running("tools", url=server.url, prompt=f"Run the command {i}", tool=SHELL)
            running = [stack.enter_context(start(i, client)) for i, client in enumerate(CLIENTS)]
            lines = [process.stdout.readline() for process in running]
        for line in lines:
            check_tools(json.loads(line))


@each_client
def test_a_client_that_goes_away_frees_its_slot(server, client):
    with client.running("cancel", url=server.url, prompt="Count") as process:
        seen = json.loads(process.stdout.readline())
        server.wait_idle()
    assert "error" not in seen, seen["error"]


@each_client
def test_a_killed_client_frees_its_slot(server, client):
    with client.running("chat", url=server.url, prompt="Count") as process:
        server.wait_busy()
        process.kill()
        server.wait_idle()


@each_client
def test_overflow_is_reported_as_such(client):
    with Server(RULES, ctx=2048) as server:
        for command in ["chat", "stream"]:
            error = client.run(command, url=server.url, prompt=LONG)["error"]
            known = any("ContextWindowExceeded" in kind or "ContextOverflow" in kind for kind in error["kind"])
            if not known:
                assert error["status"] == 400, error
            ours = "maximum context length is 2048 tokens", "tokens > 2048 maximum"
            assert any(text in error["message"] for text in ours), error
        assert server.busy() == 0


POINT = [{"when": "point", "reply": '<think>Somewhere.</think>{"x": 3, "y": -4}'}]


def test_openai_extras():
    with Server(POINT + RULES) as server:
        seen = OPENAI_CHAT.run("extras", url=server.url)
    assert "error" not in seen, seen["error"]
    assert seen["models"] == ["deepseek-v4-flash", "deepseek-chat", "deepseek-reasoner"]
    assert seen["model"] == "deepseek-chat"
    assert seen["parsed"] == {"x": 3, "y": -4}
    assert seen["echo"].startswith("Say hello to") and len(seen["echo"]) > len("Say hello to")
    assert seen["token_logprobs"][0] is None and len(seen["tokens"]) == len(seen["token_logprobs"])
    assert abs(seen["token_logprobs"][-1]) < 1e-3, "the script is certain of what it says"
    assert seen["several"] == [HELLO] * 3
    assert seen["stopped"] == ["Hello, ", "stop"]
    assert seen["short"] == "length"


def test_stored_responses(server):
    seen = OPENAI_RESPONSES.run("extras", url=server.url)
    assert "error" not in seen, seen["error"]
    assert seen["first"]["text"] == seen["second"]["text"] == seen["kept"] == HELLO
    first, second = seen["first"]["usage"][0], seen["second"]["usage"][0]
    assert second["input"] > first["input"] + 8, "the first question and its answer come before the second"
    assert seen["asked"] == ["Say hello"]
    assert (seen["gone"]["status"], seen["gone"]["code"]) == (404, "response_not_found")
    assert seen["tokens"] == first["input"]


def test_anthropic_extras(server):
    seen = ANTHROPIC.run("extras", url=server.url)
    assert "error" not in seen, seen["error"]
    assert seen["counted"] == seen["prompt"]
    assert seen["models"][0] == "deepseek-v4-flash"
    assert seen["stopped"] == ["Hello, ", "stop_sequence", "wör"]
    assert seen["short"] == "max_tokens"


def test_structured_output_of_the_ai_sdk():
    with Server(POINT) as server:
        assert AI_SDK.run("extras", url=server.url) == {"object": {"x": 3, "y": -4}}


def test_structured_output_of_langchain():
    call = (
        '\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="Point">\n<｜DSML｜parameter name="x" string="false">3</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="y" string="false">-4</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>'
    )
    tools = [{"anywhere": "## Tools", "when": "point", "reply": "<think>Somewhere.</think>" + call}]
    with Server(tools + POINT) as server:
        seen = LANGCHAIN.run("extras", url=server.url)
    assert seen == {"json_schema": {"x": 3, "y": -4}, "function_calling": {"x": 3, "y": -4}}


COUNT_FILES = {
    "name": "count_files",
    "description": "Count the files.",
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string", "description": "The path."}},
        "required": ["path"],
    },
}


@pytest.fixture(scope="module")
def mini():
    with Server(ctx=4096) as server:
        yield server


@each_client
def test_the_miniature_calls_a_real_tool(mini, client, tmp_path):
    folder = tmp_path / "src" / "boat"
    folder.mkdir(parents=True)
    for n in range(17):
        (folder / str(n)).touch()
    seen = client.run("tools", cwd=tmp_path, url=mini.url, prompt="Count the files with path src/boat.", tool=COUNT_FILES)
    assert "error" not in seen, seen["error"]
    assert seen["calls"] == [{"name": "count_files", "arguments": {"path": "src/boat"}}]
    assert "17" in seen["text"], seen["text"]
    check_no_markup(seen["text"])
