"""HTTP as bytes on a socket: what no well-behaved client does, and what some do all the same."""

import json
import signal
import socket
import time
from http.client import HTTPResponse

import httpx
import pytest

from scripts import HELLO, RULES
from server import MODEL, Server

FLOOD = " ".join(str(n) for n in range(30000))


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def ask(prompt, **more):
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}
    return json.dumps(body, ensure_ascii=False).encode()


def head(path="/v1/chat/completions", method="POST", version="1.1", **headers):
    """The head of a request; underscores in names are hyphens."""
    fields = {"Host": "127.0.0.1", "Content_Type": "application/json", **headers}
    lines = [f"{method} {path} HTTP/{version}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def post(body, **headers):
    return head(Content_Length=len(body), **headers) + body


def read(connection, method="POST"):
    response = HTTPResponse(connection, method=method)
    response.begin()
    return response, response.read()


def exchange(server, request, method="POST"):
    with connect(server) as connection:
        connection.sendall(request)
        return read(connection, method)


def check_hello(answer):
    response, body = answer
    assert response.status == 200, body
    assert json.loads(body)["choices"][0]["message"]["content"] == HELLO


def check_refused(answer, status):
    response, body = answer
    assert response.status == status, (response.status, body)
    error = json.loads(body)["error"]
    assert error["type"] == "invalid_request_error" and error["message"], error


def said(stream):
    """The text of a chat stream."""
    data = [line[6:] for line in stream.decode().splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]", data[-1]
    deltas = [choice["delta"] for chunk in data[:-1] for choice in json.loads(chunk)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_a_body_may_come_in_chunks(server):
    body = ask("Say hello")
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head(Transfer_Encoding="chunked"))
        for at in range(0, len(body), 7):
            piece = body[at : at + 7]
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        check_hello(read(connection))


def test_a_length_and_chunks_together_are_refused(server):
    body = b"2\r\n{}\r\n0\r\n\r\n"
    response, _ = exchange(server, head(Content_Length=len(body), Transfer_Encoding="chunked") + body)
    assert response.status == 400


def test_a_head_may_come_in_pieces(server):
    request = post(ask("Say hello"))
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(request), 5):
            connection.sendall(request[at : at + 5])
        check_hello(read(connection))


def test_a_connection_serves_many_requests(server):
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(post(ask("Say hello")))
            check_hello(read(connection))


def test_pipelined_requests_are_answered_in_order(server):
    with connect(server) as connection:
        connection.sendall(post(ask("Say hello")) + post(b"{") + head("/v1/models", "GET") + post(ask("Say hello")))
        # One reader for all: what it buffers belongs to the answers that follow.
        file = connection.makefile("rb")
        answers = [next_answer(file) for _ in range(4)]
    assert [status for status, _ in answers] == [200, 400, 200, 200]
    assert json.loads(answers[2][1])["object"] == "list"
    assert json.loads(answers[3][1])["choices"][0]["message"]["content"] == HELLO


def next_answer(file):
    status, length = int(file.readline().split()[1]), 0
    while (line := file.readline().strip()) != b"":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    assert length > 0
    return status, file.read(length)


def test_the_old_protocol_is_spoken(server):
    body = ask("Say hello")
    with connect(server) as connection:
        connection.sendall(post(body, version="1.0"))
        raw = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 200 " in raw.splitlines()[0] and "wörld".encode() in raw


def test_a_request_to_continue_is_answered(server):
    body = ask("Say hello")
    with connect(server) as connection:
        connection.sendall(head(Content_Length=len(body), Expect="100-continue"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        check_hello(read(connection))


@pytest.mark.parametrize(
    "request_head",
    [
        head(X_Long="a" * 70_000),
        head(**{f"X_{n}": n for n in range(120)}),
        head("/v1/models?" + "a" * 9000, "GET"),
    ],
    ids=["long", "many", "path"],
)
def test_giant_heads_are_refused(server, request_head):
    response, _ = exchange(server, request_head)
    assert response.status in {431, 414}, response.status
    assert server.health()["status"] == "ok"


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        ask("Say hello") + b"}",
        ask("Say hello")[:-1],
        b"",
        b"[]",
        b'{"messages": ' + b"[" * 100_000,
        b'{"messages": [{"content": "no role"}]}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": 1e400}',
        ask("Say hello", max_tokens=-1),
        ask("Say hello", temperature="hot"),
    ],
    ids=["byte", "surrogate", "escape", "after", "cut", "empty", "array", "deep", "role", "infinite", "negative", "type"],
)
def test_bad_bodies_are_refused(server, body):
    check_refused(exchange(server, post(body)), 400)
    check_hello(exchange(server, post(ask("Say hello"))))


def test_a_byte_order_mark_is_no_harm(server):
    check_hello(exchange(server, post(b"\xef\xbb\xbf" + ask("Say hello") + b"\n")))


def test_paths_and_methods(server):
    for path in ["/v1/chat/completions?beta=true", "/v1/chat/completions/", "/chat/completions", "/v1/chat%2Fcompletions"]:
        check_hello(exchange(server, post(ask("Say hello"), path=path)))
    check_refused(exchange(server, post(b"{}", path="/v1/nothing")), 404)
    wrong = exchange(server, head(method="GET"), "GET")
    check_refused(wrong, 405)
    assert "POST" in wrong[0].headers["Allow"]
    response, body = exchange(server, head("/v1/models", "HEAD"), "HEAD")
    assert response.status == 200 and body == b"" and int(response.headers["Content-Length"]) > 100
    response, body = exchange(server, head(method="OPTIONS"), "OPTIONS")
    assert response.status == 204 and not [name for name in response.headers if name.lower().startswith("access-control")]


def test_other_content_types_are_refused(server):
    check_refused(exchange(server, post(ask("Say hello"), Content_Type="text/plain")), 415)


def test_browsers_of_other_sites_are_refused(server):
    check_refused(exchange(server, post(ask("Say hello"), Host="example.com")), 403)
    check_refused(exchange(server, post(ask("Say hello"), Origin="http://example.com")), 403)
    # Command line programs send this, too.
    check_hello(exchange(server, post(ask("Say hello"), Sec_Fetch_Mode="cors")))


def test_every_answer_has_an_id(server):
    own = exchange(server, post(ask("Say hello"), X_Request_Id="mine-1"))[0].headers["x-request-id"]
    other = exchange(server, post(b"{"))[0].headers["x-request-id"]
    assert own == "mine-1" and len(other) > 8
    failed, body = exchange(server, post(b"{", path="/v1/messages"))
    told = json.loads(body)
    assert told["type"] == "error" and told["error"]["type"] == "invalid_request_error"
    assert told["request_id"] == failed.headers["request-id"]


def test_a_body_over_the_limit_is_refused():
    with Server(RULES, args=["--max-body-mb", "1"]) as server:
        body = ask("word " * 300_000)
        for request in [head(Content_Length=len(body)), head(Transfer_Encoding="chunked") + b"%x\r\n%s" % (len(body), body)]:
            with connect(server) as connection:
                try:
                    connection.sendall(request)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # It may answer before it has read all.
                response, told = read(connection)
                assert response.status == 413, told
                assert json.loads(told)["error"]["code"] == "request_too_large"


def test_a_request_that_stalls_is_dropped():
    with Server(RULES, args=["--io-timeout-sec", "1"]) as server:
        for half in [head()[:40], head(Content_Length=100) + b"{"]:
            with connect(server) as connection:
                connection.sendall(half)
                started = time.monotonic()
                answer = connection.recv(65536)
                assert time.monotonic() - started < 8
                assert answer == b"" or b" 408 " in answer.splitlines()[0], answer
        check_hello(exchange(server, post(ask("Say hello"))))


def begin_stream(server, prompt):
    connection = connect(server)
    connection.sendall(post(ask(prompt, stream=True)))
    server.wait_busy()
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_half_closed_is_closed(server, stream):
    with connect(server) as connection:
        connection.sendall(post(ask("Count", stream=stream)))
        server.wait_busy()
        connection.shutdown(socket.SHUT_WR)
        server.wait_idle()


def test_a_reset_connection_frees_its_slot(server):
    with begin_stream(server, "Count") as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.recv(10)
    server.wait_idle()


def test_a_client_that_goes_away_during_the_prompt_frees_its_slot():
    rules = [{"when": "slow", "reply": "done", "prefill_per_second": 100}]
    with Server(rules, args=["--prefill-chunk", "16"]) as server:
        with begin_stream(server, "slow " * 3000):
            time.sleep(0.3)
        server.wait_idle()


def test_a_client_that_does_not_read_holds_up_nobody_and_loses_nothing():
    with Server([{"when": "flood", "reply": FLOOD}, *RULES], ctx=200_000) as server:
        with begin_stream(server, "flood") as connection:
            for _ in range(5):
                started = time.monotonic()
                check_hello(exchange(server, post(ask("Say hello"))))
                assert time.monotonic() - started < 5
                time.sleep(0.3)
            response, body = read(connection)
        assert response.status == 200 and said(body) == FLOOD
        server.wait_idle()


def test_a_quiet_stream_is_kept_alive():
    rules = [{"when": "slow", "reply": "<think>Hm.</think>Done.", "stall_ms": 3500}]
    with Server(rules, args=["--sse-keepalive-sec", "1"]) as server:
        started, first = time.monotonic(), None
        with httpx.stream("POST", server.url + "/v1/chat/completions", content=ask("slow", stream=True), headers={"content-type": "application/json"}, timeout=2.5) as answer:
            lines = []
            for line in answer.iter_lines():
                first = first or time.monotonic() - started
                lines.append(line)
        assert first < 2.5, "nothing for more than two seconds"
        before = lines[: next(i for i, line in enumerate(lines) if '"content":"D' in line)]
        assert sum(line.startswith(": ") for line in before) >= 2, before
        assert said("\n".join(lines).encode()) == "Done."


def test_numbers_that_are_none_end_one_answer_alone():
    rules = [{"when": "break", "reply": "<think></think>one two three four", "nan_at": 4}, *RULES]
    with Server(rules) as server:
        response, body = exchange(server, post(ask("break")))
        assert response.status == 500 and json.loads(body)["error"]["type"] == "server_error", body
        _, stream = exchange(server, post(ask("break", stream=True)))
        data = [line for line in stream.decode().splitlines() if line.startswith("data: ")]
        assert "error" in json.loads(data[-1][6:]) and "[DONE]" not in stream.decode()
        check_hello(exchange(server, post(ask("Say hello"))))
        assert server.busy() == 0


def test_a_server_that_is_asked_to_end_finishes_its_streams():
    count = " ".join(str(n) for n in range(30))
    with Server([{"when": "Count", "reply": count, "tokens_per_second": 40}]) as server:
        with begin_stream(server, "Count") as connection:
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            # Nothing new begins: the door is shut, or says so.
            try:
                assert httpx.get(server.url + "/health").status_code == 503
                assert exchange(server, post(ask("Count")))[0].status == 503
            except (OSError, httpx.TransportError):
                pass
            _, body = read(connection)
        assert said(body) == count
        assert server.process.wait(10) == 0
