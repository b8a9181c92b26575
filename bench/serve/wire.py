"""HTTP/1.1 by hand, on asyncio: one connection, its requests one after another, and streams of server-sent events.

Nothing is decoded while a stream runs but what finds the ends of its events: each is kept as bytes with the time at
which it came, so that the client takes little of the machine that it measures.
"""

import asyncio
import contextlib
import json
import time
import urllib.parse
from dataclasses import dataclass, field

LIMIT = 1 << 24


class Broken(Exception):
    """The server closed a connection, or sent what is not HTTP."""


@dataclass
class Reply:
    status: int
    headers: dict
    body: bytes = b""

    def json(self):
        return json.loads(self.body)


@dataclass
class Event:
    at: float  # seconds, of time.perf_counter
    data: bytes  # what stands after `data:`

    def json(self):
        return json.loads(self.data)


@dataclass
class Streamed:
    """A reply that came in events, or an error that came instead."""

    status: int = 0
    headers: dict = field(default_factory=dict)
    began: float = 0.0
    events: list = field(default_factory=list)
    done: bool = False  # `[DONE]` came
    body: bytes = b""  # of a reply that is no stream
    pings: int = 0

    def chunks(self):
        return [event.json() for event in self.events]


def address(url):
    parts = urllib.parse.urlsplit(url)
    return parts.hostname, parts.port


def completion_text(chunk):
    """The text of a streamed chunk of a completion of one choice."""
    return "".join(choice.get("text") or "" for choice in chunk.get("choices", []))


class Connection:
    """One connection. It opens itself, and again where the server closed it between two requests."""

    def __init__(self, url, key=None):
        self.host, self.port = address(url)
        self.key = key
        self.reader = self.writer = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=LIMIT)

    async def close(self):
        if self.writer:
            self.writer.close()
            with contextlib.suppress(OSError):
                await self.writer.wait_closed()
        self.reader = self.writer = None

    def leave(self):
        """Closes at once, as a client does that is killed."""
        if self.writer:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def ask(self, method, path, body=None, headers=None):
        status, found = await self.begin(method, path, body, headers)
        reply = Reply(status, found, b"".join([part async for part in self.parts(found)]))
        await self.finish(found)
        return reply

    async def begin(self, method, path, body, headers):
        """Sends a request and reads the reply's head; once more if the connection turns out to be stale."""
        fresh = self.writer is None
        try:
            return await self.send(method, path, body, headers)
        except (OSError, Broken):
            await self.close()
            if fresh:
                raise
            return await self.send(method, path, body, headers)

    async def finish(self, headers):
        if headers.get("connection", "").lower() == "close":
            await self.close()

    async def send(self, method, path, body, headers):
        if self.writer is None:
            await self.open()
        payload = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"host: {self.host}:{self.port}", f"content-length: {len(payload)}"]
        lines += ["content-type: application/json"] if body is not None else []
        lines += [f"authorization: Bearer {self.key}"] if self.key else []
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + payload)
        await self.writer.drain()
        return await self.head()

    async def head(self):
        line = await self.reader.readline()
        if not line.startswith(b"HTTP/1."):
            raise Broken(f"the reply begins with {line[:40]!r}")
        headers = {}
        while (more := await self.reader.readline()).strip():
            name, _, value = more.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(line.split()[1]), headers

    async def parts(self, headers):
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                line = await self.reader.readline()
                if not line:
                    raise Broken("the reply ends inside a chunk")
                size = int(line.split(b";")[0], 16)
                data = await self.reader.readexactly(size + 2)
                if size == 0:
                    return
                yield data[:-2]
        elif "content-length" in headers:
            yield await self.reader.readexactly(int(headers["content-length"]))
        else:
            while data := await self.reader.read(1 << 16):
                yield data

    async def stream(self, path, body, on_event=None):
        """Reads a stream to its end. `on_event` sees what came so far, and ends it early by returning True."""
        found = Streamed(began=time.perf_counter())
        found.status, found.headers = await self.begin("POST", path, body, None)
        if "text/event-stream" not in found.headers.get("content-type", ""):
            found.body = b"".join([part async for part in self.parts(found.headers)])
            await self.finish(found.headers)
            return found
        rest = b""
        async for part in self.parts(found.headers):
            at = time.perf_counter()
            *events, rest = (rest + part).split(b"\n\n")
            for event in events:
                self.note(found, event, at)
                if on_event and on_event(found):
                    self.leave()
                    return found
        await self.finish(found.headers)
        return found

    @staticmethod
    def note(found, event, at):
        for line in event.split(b"\n"):
            if line.startswith(b":"):
                found.pings += 1
            elif line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    found.done = True
                else:
                    found.events.append(Event(at, data))


async def ask(url, method, path, body=None, headers=None, key=None):
    async with Connection(url, key) as connection:
        return await connection.ask(method, path, body, headers)
