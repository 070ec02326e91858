"""What the proxy of ``cycles run`` adds to a plain pass-through: time to the first byte, CPU, and memory.

The pass-through is the shortest that starlette, httpx and uvicorn allow. Upstream, pass-through and proxy are separate
processes: `python -m benchmarks.proxy upstream|plain|guarded`. The ledger is in the proxy's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.process import ROOT

CHUNKS: Final = 600
STREAMS: Final = 20
OPEN_STREAMS: Final = 200
_EVENT: Final = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "gpt-4o",
    "choices": [{"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None}],
}
_USAGE: Final = {"prompt_tokens": 20, "completion_tokens": CHUNKS, "total_tokens": CHUNKS + 20}
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"


# --- the three processes


async def _respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection: a stream of events if the body says so, one JSON document otherwise."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = json.loads(await reader.readexactly(int(length.partition(b":")[2])))
            if body.get("stream"):
                await _stream(writer, float(body.get("user", "0")))
            else:
                whole = {**_EVENT, "choices": [{"message": {"role": "assistant", "content": "hi"}}], "usage": _USAGE}
                _write(writer, b"application/json", json.dumps(whole).encode())
            writer.write(b"0\r\n\r\n")
            await writer.drain()


async def _stream(writer: asyncio.StreamWriter, pause_s: float) -> None:
    event = f"data: {json.dumps(_EVENT)}\n\n".encode()
    _write(writer, b"text/event-stream", event)
    for _ in range(CHUNKS - 2):
        await asyncio.sleep(pause_s)
        _chunk(writer, event)
        await writer.drain()
    last = {**_EVENT, "choices": [], "usage": _USAGE}
    _chunk(writer, f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())


def _write(writer: asyncio.StreamWriter, kind: bytes, first: bytes) -> None:
    writer.write(_HEAD % kind)
    _chunk(writer, first)


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


async def _serve_upstream() -> None:
    server = await asyncio.start_server(_respond, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def _serve_plain(upstream: str) -> None:
    """Serve the pass-through."""
    import socket

    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None))

    async def relay(request: Request) -> StreamingResponse:
        sent = client.build_request("POST", f"{upstream}{request.url.path}", content=await request.body())
        response = await client.send(sent, stream=True)
        kept = {"content-type": response.headers["content-type"]}
        return StreamingResponse(response.aiter_raw(), response.status_code, kept)

    # With IPPROTO_TCP, because asyncio sets TCP_NODELAY only on sockets that name it.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    sock.listen(1024)
    print(f"http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
    app = Starlette(routes=[Route("/{path:path}", relay, methods=["POST"])])
    config = uvicorn.Config(app, log_level="critical", access_log=False, ws="none", lifespan="off")
    asyncio.run(uvicorn.Server(config).serve([sock]))


def _serve_guarded(upstream: str) -> None:
    """Serve the proxy with a ledger in this process."""
    import cycles
    from cycles.proxy._clients import LedgerClient
    from cycles.proxy._server import ProxyServer
    from cycles.proxy._settings import ProxySettings

    server = cycles.EmbeddedServer({"tenant:run": cycles.usd(1_000_000)})
    settings = ProxySettings(
        upstreams=dict.fromkeys(("openai", "anthropic", "gemini"), upstream),
        prices=cycles.PriceBook({"gpt-4o": cycles.Price("2.50", "10")}),
    )
    direct = LedgerClient(server)
    proxy = ProxyServer(settings, server.client(tenant="run", async_http_client=direct))
    print(proxy.start("127.0.0.1", 0), flush=True)
    sys.stdin.read()


# --- the measurements


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[tuple[str, int]]:
    """Start one of the processes; yield its address and its id."""
    command = [sys.executable, "-m", "benchmarks.proxy", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


def _cpu_s(pid: int) -> float:
    """Add up the CPU time of the threads of a process: /proc counts it in nanoseconds for each thread."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def _kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def _body(*, stream: bool, pause_s: float = 0.0) -> bytes:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    body: dict[str, Any] = {"model": "gpt-4o", "messages": messages, "max_tokens": 1000, "user": str(pause_s)}
    return json.dumps({**body, "stream": stream}).encode()


class _Caller:
    """One kept connection to a proxy, for one call at a time."""

    def __init__(self, url: str, path: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc)
        self._path = path
        self._body = _body(stream=False)

    def call(self) -> float:
        """Make a call; return the seconds to its first byte."""
        started = time.perf_counter()
        self._connection.request("POST", self._path, self._body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        response.read(1)
        took = time.perf_counter() - started
        response.read()
        assert response.status == 200
        return took


async def _open_streams(url: str, path: str, count: int, pause_s: float) -> None:
    """Read this many streams at the same time; each must end whole."""
    host, _, port = urlsplit(url).netloc.partition(":")
    body = _body(stream=True, pause_s=pause_s)
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n"
    request = f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + body

    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        tail = b""
        while part := await reader.read(65536):
            tail = (tail + part)[-64:]
        writer.close()
        assert b"[DONE]" in tail

    await asyncio.gather(*(one() for _ in range(count)))


def measure(calls: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the figures of the pass-through and of the proxy.

    Args:
        calls: Single calls per round.
        rounds: Rounds of each.
    """
    path = {"pass-through": "/v1/chat/completions", "cycles proxy": "/openai/v1/chat/completions"}
    with contextlib.ExitStack() as stack:
        upstream, _ = stack.enter_context(_process("upstream"))
        made = {"pass-through": ("plain", upstream), "cycles proxy": ("guarded", upstream)}
        running = {name: stack.enter_context(_process(*arguments)) for name, arguments in made.items()}
        firsts: dict[str, list[float]] = {name: [] for name in running}
        cpus: dict[str, list[float]] = {name: [] for name in running}
        chunks: dict[str, list[float]] = {name: [] for name in running}
        for name, (url, pid) in [*running.items()] * rounds:
            caller = _Caller(url, path[name])
            caller.call()
            before = _cpu_s(pid)
            firsts[name] += [caller.call() for _ in range(calls)]
            middle = _cpu_s(pid)
            asyncio.run(_open_streams(url, path[name], STREAMS, 0.001))
            cpus[name].append((middle - before) / calls)
            chunks[name].append((_cpu_s(pid) - middle) / (STREAMS * CHUNKS))
        return {
            name: {
                "first_byte_ms": statistics.median(firsts[name]) * 1e3,
                "cpu_ms_per_call": statistics.median(cpus[name]) * 1e3,
                "cpu_us_per_chunk": statistics.median(chunks[name]) * 1e6,
                "kib_per_stream": _memory(url, path[name], pid),
            }
            for name, (url, pid) in running.items()
        }


def _memory(url: str, path: str, pid: int) -> float:
    """Return the KiB that each of 200 open streams adds at most."""
    before, most = _kib(pid), 0

    async def watch(streams: asyncio.Task[None]) -> None:
        nonlocal most
        while not streams.done():
            most = max(most, _kib(pid))
            await asyncio.sleep(0.05)

    async def run() -> None:
        streams = asyncio.create_task(_open_streams(url, path, OPEN_STREAMS, 0.01))
        await asyncio.gather(streams, watch(streams))

    asyncio.run(run())
    return (most - before) / OPEN_STREAMS


def can_be_measured() -> bool:
    """Return whether starlette and uvicorn are installed, on a system with /proc."""
    return Path("/proc/self/schedstat").exists() and all(map(importlib.util.find_spec, ("starlette", "uvicorn")))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["upstream"]:
            asyncio.run(_serve_upstream())
        case ["plain", upstream]:
            _serve_plain(upstream)
        case ["guarded", upstream]:
            _serve_guarded(upstream)
        case _:
            print(json.dumps(measure(100, 3), indent=1))
