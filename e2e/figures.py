#!/usr/bin/env python3
"""Figures of the server, side by side in one run, with their bars. Needs Python alone.

    e2e/figures.py [--server target/release/ds4-server] [--only NAME,...]

Starts servers on the miniature with folders of their own and ends with 1 if a bar is missed.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = "the old river runs by a green hill where small birds sing in the cold morning and nobody knows their names".split()
failures = []


def report(name, seen, bar, good):
    print(f"{name:34} {seen:58} {bar:26} {'PASS' if good else 'FAIL'}", flush=True)
    if not good:
        failures.append(name)


def text(tokens, seed):
    """A text of about so many tokens."""
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(tokens))


class Server:
    def __init__(self, home, *flags):
        self.home, self.flags = home, flags

    async def __aenter__(self):
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        command = [ARGS.server, "--port", "0", *self.flags]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=self.home)
        line = self.process.stdout.readline()
        self.port = int(line.rsplit(":", 1)[1])
        return self

    async def __aexit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def rss(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

    async def open(self, path, body):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + data)
        await writer.drain()
        return reader, writer

    async def post(self, path, body):
        reader, writer = await self.open(path, body)
        raw = await reader.read()
        writer.close()
        head, _, rest = raw.partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], raw[:400]
        return json.loads(rest)

    async def get(self, path):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        raw = await reader.read()
        writer.close()
        return json.loads(raw.partition(b"\r\n\r\n")[2])

    def watch(self, body):
        """Seconds from the first text of a stream to its last byte, and what came. Reads and nothing else: the client shares the
        machine with the server, and its work must not count as the server's."""
        data = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(head.encode() + data)
            begin, blocks = None, []
            while block := connection.recv(1 << 16):
                if begin is None and b'"content":"' in block.replace(b'"content":""', b""):
                    begin = time.perf_counter()
                blocks.append(block)
            return time.perf_counter() - begin, b"".join(blocks)

    def ask(self, connection, body):
        """One answer over a connection that stays, and the seconds until it came."""
        data = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        begin = time.perf_counter()
        connection.sendall(head.encode() + data)
        raw = connection.recv(1 << 16)
        took = time.perf_counter() - begin
        return took, json.loads(raw.partition(b"\r\n\r\n")[2])

    async def stream(self, body):
        """Times at which a chunk with text came, and the usage."""
        reader, writer = await self.open("/v1/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})
        times, usage, said = [], None, ""
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            assert "error" not in chunk, chunk
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                delta = choice["delta"]
                if delta.get("content") or delta.get("reasoning_content"):
                    times.append(time.perf_counter())
                    said += delta.get("content") or ""
        writer.close()
        return times, usage, said


def chat(content, **more):
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    return {"messages": messages, "temperature": 0, "thinking": {"type": "disabled"}, **more}


async def ttft(server, body):
    begin = time.perf_counter()
    times, usage, said = await server.stream(body)
    return times[0] - begin, usage, said


async def second_turn(home):
    async with Server(home, "--ctx", "24576", "--parallel", "2") as server:
        first = text(20000, 1) + "\n\nHello!"
        took, usage, said = await ttft(server, chat(first, max_tokens=40))
        again = chat([{"role": "user", "content": first}, {"role": "assistant", "content": said}, {"role": "user", "content": "And now?"}], max_tokens=8)
        took2, usage2, _ = await ttft(server, again)
        cached, prompt = usage2["prompt_tokens_details"]["cached_tokens"], usage2["prompt_tokens"]
        report("second turn of a long session", f"{cached} of {prompt} tokens cached; {took:.2f} s, then {took2:.3f} s", ">= prompt - 64", cached >= prompt - 64)


async def restart(home):
    flags = ("--ctx", "16384", "--parallel", "2", "--kv-disk-dir", str(home / "kv"))
    question = text(8000, 2) + "\n\nHello!"
    async with Server(home, *flags) as server:
        cold, usage, said = await ttft(server, chat(question, max_tokens=32))
    again = [{"role": "user", "content": question}, {"role": "assistant", "content": said}, {"role": "user", "content": "Thanks. Bye!"}]
    async with Server(home, *flags) as server:
        warm, usage2, _ = await ttft(server, chat(again, max_tokens=8))
    cached = usage2["prompt_tokens_details"]["cached_tokens"]
    report("restart in the middle of a session", f"{usage['prompt_tokens']} tokens: cold {cold:.2f} s, restored {warm:.3f} s, {cached} cached", "10 times shorter", cold >= 10 * warm)


async def streams(home):
    async with Server(home, "--ctx", "1024", "--parallel", "64") as server:
        body = lambda i: chat(text(20, i), max_tokens=96, ignore_eos=True)
        await server.stream(body(999))
        begin = time.perf_counter()
        alone, usage, _ = await server.stream(body(1000))
        one = usage["completion_tokens"] / (time.perf_counter() - begin)
        before = server.rss()
        begin = time.perf_counter()
        results = await asyncio.gather(*(server.stream(body(i)) for i in range(64)))
        rate = sum(usage["completion_tokens"] for _, usage, _ in results) / (time.perf_counter() - begin)
        gaps = [b - a for times, _, _ in results for a, b in zip(times, times[1:])]
        worst, middle = max(gaps), statistics.median(gaps)
        report("64 streams: rate", f"{rate:.0f} tokens/s together, {one:.0f} alone ({rate / one:.2f} times)", ">= 1.5 times", rate >= 1.5 * one)
        report("64 streams: gap between tokens", f"median {middle * 1e3:.1f} ms, worst {worst * 1e3:.1f} ms ({worst / middle:.1f} times)", "< 5 times", worst < 5 * middle)
        report("64 streams: memory", f"{before:.0f} MB before, {server.rss():.0f} MB after", "< 1.5 times", server.rss() < 1.5 * before + 64)


async def overhead(home):
    async with Server(home, "--ctx", "4096", "--parallel", "1") as server:
        added = []
        for i in range(12):
            took, came = server.watch(chat("Hello!", max_tokens=400, ignore_eos=True))
            assert came.count(b'"content":"') > 300 and b"[DONE]" in came
            whole = took / 399
            answer = await server.post("/v1/chat/completions", chat("Hello!", max_tokens=400, ignore_eos=True, timings=True))
            engine = answer["timings"]["predicted_ms"] / 1e3 / answer["usage"]["completion_tokens"]
            added.append((whole - engine) * 1e6)
        middle = statistics.median(added)
        report("added by streaming, per token", f"{middle:.0f} us (median of {len(added)} pairs)", "< 100 us", middle < 100)
        warm = text(1000, 3)
        await server.post("/v1/chat/completions", chat(warm, max_tokens=1))
        times, engine = [], []
        connection = socket.create_connection(("127.0.0.1", server.port))
        for _ in range(50):
            took, answer = server.ask(connection, chat(warm, max_tokens=1, timings=True))
            times.append(took * 1e3)
            engine.append(answer["timings"]["prompt_ms"] + answer["timings"]["predicted_ms"])
        report("one token on a warm prefix", f"p50 {statistics.median(times):.2f} ms, the engine's part {statistics.median(engine):.2f} ms", "reported", True)


async def same_bits(home):
    flags = ("--ctx", "4096", "--parallel", "32", "--kv-disk-dir", str(home / "kv2"), "--kv-cache-min-tokens", "64")
    asked = [chat(text(700, 5), max_tokens=48, logprobs=True, top_logprobs=5, ignore_eos=True), chat(text(700, 5), max_tokens=48, logprobs=True, top_logprobs=5, ignore_eos=True, seed=7)]
    asked[1]["temperature"] = 1.0
    show = lambda answer: json.dumps(answer["choices"][0])
    async with Server(home, *flags) as server:
        alone = [show(await server.post("/v1/chat/completions", body)) for body in asked]
    async with Server(home, *flags) as server:
        restored = [await server.post("/v1/chat/completions", body) for body in asked]
        cached = restored[0]["usage"]["prompt_tokens_details"]["cached_tokens"]
        restored = [show(answer) for answer in restored]
    async with Server(home, "--ctx", "4096", "--parallel", "32") as server:
        others = [chat(text(40 + 9 * i, 50 + i), max_tokens=64, ignore_eos=True, temperature=1) for i in range(31)]
        batched = []
        for body in asked:
            answers = await asyncio.gather(server.post("/v1/chat/completions", body), *(server.post("/v1/chat/completions", o) for o in others))
            batched.append(show(answers[0]))
    equal = alone == restored == batched
    report("alone, restored, among 31 others", f"{'identical' if equal else 'different'} tokens and log-probabilities, {cached} restored", "identical", equal and cached > 600)


async def abuse(home):
    script = home / "slow.jsonl"
    script.write_text(json.dumps({"reply": "one two three four five six seven eight nine ten " * 20, "tokens_per_second": 400}) + "\n")
    flags = ("--backend", "stub", "--stub-script", str(script), "--ctx", "2048", "--parallel", "8", "--max-queue", "4000", "--max-connections", "3000")
    async with Server(home, *flags) as server:
        body = chat("hi", stream=True)
        await server.stream(chat("hi", max_tokens=4))
        before = server.rss()
        idle = await asyncio.gather(*(server.open("/v1/chat/completions", body) for _ in range(1000)))
        await asyncio.sleep(6)
        heard = sum([bool(await asyncio.wait_for(reader.read(1), 5)) for reader, _ in idle])
        for _, writer in idle:
            writer.close()
        rng = random.Random(4)
        gate = asyncio.Semaphore(64)

        async def one():
            async with gate:
                reader, writer = await server.open("/v1/chat/completions", {**body, "max_tokens": 8})
                wait = rng.choice((0, 0, 0.001, 0.01, 0.05))
                if wait:
                    try:
                        await asyncio.wait_for(reader.read(rng.choice((1, 400, 1 << 20))), wait)
                    except TimeoutError:
                        pass
                writer.transport.abort() if rng.random() < 0.5 else writer.close()

        await asyncio.gather(*(one() for _ in range(10_000)))
        begin, free = time.perf_counter(), False
        while time.perf_counter() - begin < 30 and not free:
            health = await server.get("/health")
            free = health.get("slots_processing", 0) == 0 and health["queue"] == 0
            await asyncio.sleep(0.05)
        took = time.perf_counter() - begin
        _, usage, _ = await server.stream(chat("hi", max_tokens=4))
        after = server.rss()
        report("1,000 idle clients", f"{heard} heard something within 6 s", "all", heard == 1000)
        report("10,000 requests, random ends", f"idle again after {took:.2f} s; {before:.0f} MB before, {after:.0f} MB after", "idle, < 100 MB more", free and after < before + 100 and usage["completion_tokens"] == 4)


FIGURES = {"second-turn": second_turn, "restart": restart, "streams": streams, "overhead": overhead, "same-bits": same_bits, "abuse": abuse}


def main():
    global ARGS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=str(ROOT / "target/release/ds4-server"))
    parser.add_argument("--only", default=",".join(FIGURES))
    ARGS = parser.parse_args()
    ARGS.server = str(Path(ARGS.server).resolve())
    for name in ARGS.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(FIGURES[name](Path(folder)))
    sys.exit(bool(failures))


main()
