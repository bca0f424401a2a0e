"""A proxy between a client and the server that keeps what was said, so that a test can look at the wire."""

import json
import threading
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Exchange:
    method: str
    path: str
    request: bytes
    headers: dict
    status: int = 0
    answer: bytes = b""
    done: bool = False

    def asks(self):
        return self.method == "POST" and json.loads(self.request).get("messages", json.loads(self.request).get("input"))

    def objects(self):
        """The JSON objects of an answer, streamed or not."""
        text = self.answer.decode()
        if text.startswith("{"):
            return [json.loads(text)]
        data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in data if line != "[DONE]"]

    def usage(self):
        """(prompt, output, cached) as the answer reports them last, whatever the API."""
        found = None
        for value in self.objects():
            usage = value.get("usage") or (value.get("response") or {}).get("usage")
            if not usage:
                continue
            if "prompt_tokens" in usage:
                cached = usage["prompt_tokens_details"]["cached_tokens"]
                found = usage["prompt_tokens"], usage["completion_tokens"], cached
            elif "input_tokens_details" in usage:
                found = usage["input_tokens"], usage["output_tokens"], usage["input_tokens_details"]["cached_tokens"]
            else:
                cached = usage["cache_read_input_tokens"]
                prompt = usage["input_tokens"] + cached + usage["cache_creation_input_tokens"]
                found = prompt, usage["output_tokens"], cached
        assert found, f"no usage in {self.answer[-2000:]}"
        return found


@dataclass
class Recorder:
    server_port: int
    exchanges: list = field(default_factory=list)

    def __enter__(self):
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def serve(self):
                recorder.pass_on(self)

            do_GET = do_POST = do_HEAD = do_DELETE = do_OPTIONS = serve

        self.proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.proxy.daemon_threads = True
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.proxy.server_address[1]}"
        return self

    def __exit__(self, *_):
        self.proxy.shutdown()
        self.proxy.server_close()

    def pass_on(self, handler):
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        exchange = Exchange(handler.command, handler.path, body, dict(handler.headers))
        self.exchanges.append(exchange)
        upstream = HTTPConnection("127.0.0.1", self.server_port, timeout=300)
        dropped = {"host", "connection", "transfer-encoding", "accept-encoding"}
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in dropped}
        try:
            upstream.request(handler.command, handler.path, body or None, headers)
            answer = upstream.getresponse()
            exchange.status = answer.status
            handler.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                    handler.send_header(name, value)
            # The end of the answer is the end of the connection, whatever the server chose.
            handler.send_header("Connection", "close")
            handler.end_headers()
            while piece := answer.read1(65536):
                exchange.answer += piece
                handler.wfile.write(piece)
                handler.wfile.flush()
            exchange.done = True
        except OSError:
            pass  # The client went away; closing tells the server.
        finally:
            handler.close_connection = True
            upstream.close()

    def asked(self):
        """What was asked of the model, in order."""
        return [exchange for exchange in self.exchanges if exchange.asks()]
