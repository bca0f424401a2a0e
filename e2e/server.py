"""A ds4-server of its own for a test: started with a script, watched through its own endpoints, ended with the test."""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import httpx

MODEL = "deepseek-v4-flash"


class Server:
    """`rules` is a script for the stub; without rules the miniature inside the program answers."""

    def __init__(self, rules=None, *, ctx=100000, parallel=4, args=()):
        self.folder = tempfile.TemporaryDirectory(prefix="ds4-e2e-")
        words = [os.environ["DS4_SERVER"], "--host", "127.0.0.1", "--port", "0", "--parallel", str(parallel)]
        words += ["--ctx", str(ctx), "--slots"]
        if rules is not None:
            script = Path(self.folder.name, "script.json")
            script.write_text(json.dumps(rules))
            words += ["--backend", "stub", "--stub-script", str(script)]
        self.log_path = Path(self.folder.name, "log")
        # DS4_MODEL or a model in the current folder would replace the miniature.
        env = {name: value for name, value in os.environ.items() if name != "DS4_MODEL"}
        env["DS4_HOME"] = str(Path(self.folder.name, "home"))
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [*words, *args], stdout=subprocess.PIPE, stderr=log, text=True, env=env, cwd=self.folder.name
            )
        self.url = None
        for line in self.process.stdout:
            if found := re.search(r"listening on (http://\S+)", line):
                self.url = found[1].rstrip("/")
                break
        if self.url is None:
            raise AssertionError(f"the server ended before it listened:\n{self.log()}")
        # A full pipe would stop the server.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.port = int(self.url.rsplit(":", 1)[1])
        self.wait(lambda: httpx.get(self.url + "/health").status_code == 200, 60, "ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait(self, fact, seconds, what):
        end = time.monotonic() + seconds
        while not fact():
            assert self.process.poll() is None, f"the server ended:\n{self.log()}"
            assert time.monotonic() < end, f"not {what} within {seconds} s:\n{self.log()}"
            time.sleep(0.02)

    def health(self):
        return httpx.get(self.url + "/health").json()

    def busy(self):
        return self.health()["slots_processing"]

    def wait_busy(self):
        # Some clients take their time to begin.
        self.wait(lambda: self.busy() > 0, 60, "busy")

    def wait_idle(self, seconds=0.5):
        """A client that goes away frees its slot within half a second."""
        self.wait(lambda: self.busy() == 0, seconds, "idle")

    def statuses(self):
        """Answers by status code, from the metrics."""
        counts = {}
        for labels, value in re.findall(r"^ds4:http_requests_total\{(.*)\} (\S+)$", self.metrics(), re.M):
            code = re.search(r'code="(\d+)"', labels)[1]
            counts[code] = counts.get(code, 0) + float(value)
        assert counts, "the metrics count no requests"
        return counts

    def metrics(self):
        return httpx.get(self.url + "/metrics").text

    def refused(self):
        return {code: n for code, n in self.statuses().items() if code >= "400"}
