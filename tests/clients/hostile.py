"""Hostile clients: what they send is refused in one line, memory stays bounded, and nobody else notices.

    python tests/clients/hostile.py --offramp target/release/offramp
    python tests/clients/hostile.py --offramp target/release/offramp --connections 1000

All of it goes to a server of its own on loopback. Beside every attack a watcher reads one greedy and one seeded stream,
again and again; their bytes must be those of before. Needs nothing but Python.
"""

import argparse
import contextlib
import http.client
import json
import resource
import selectors
import socket
import threading
import time
import urllib.parse
from pathlib import Path

import checks
import hostile_bodies
import server

SOON = 15  # seconds in which a bad request must be answered or its connection closed
STREAMS = [
    {"prompt": "Once upon a time", "max_tokens": 60, "temperature": 0, "ignore_eos": True, "stream": True},
    {"prompt": "One day, Tom", "max_tokens": 60, "temperature": 0.9, "seed": 4, "ignore_eos": True, "stream": True},
]


class Target:
    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port

    def post(self, path, body):
        """Status and body of one request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SOON)
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", path, body, {"content-type": "application/json"})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def connect(self):
        return socket.create_connection((self.host, self.port), timeout=SOON)

    def raw(self, data):
        """What comes back for these bytes until the connection closes; `None` if it stays open and silent."""
        with self.connect() as link:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                link.sendall(data.replace(b"HOST", f"{self.host}:{self.port}".encode()))
            answer, end = b"", time.monotonic() + SOON
            try:
                while time.monotonic() < end:
                    part = link.recv(1 << 16)
                    answer += part
                    if not part or b"\r\n\r\n" in answer:
                        return answer
            except ConnectionResetError:
                return answer
            except TimeoutError:
                return None
            return None

    def stream(self, body):
        """The text of a stream, as bytes."""
        status, data = self.post(hostile_bodies.COMPLETIONS, json.dumps(body))
        assert status == 200, f"a normal stream got {status}: {data[:200]!r}"
        events = [event[6:] for event in data.split(b"\n\n") if event.startswith(b"data: ")]
        assert events[-1] == b"[DONE]", f"a normal stream ends with {events[-1]!r}"
        return "".join(choice["text"] for event in events[:-1] for choice in json.loads(event)["choices"]).encode()


class Watcher:
    """Reads streams beside an attack, and the server's memory."""

    def __init__(self, target, running):
        self.target, self.running = target, running
        self.expected = [target.stream(body) for body in STREAMS]
        self.peak = running.resident()

    @contextlib.contextmanager
    def beside(self):
        """Streams are read as long as this lasts, and once more."""
        going, found = threading.Event(), []
        thread = threading.Thread(target=self.watch, args=(going, found), daemon=True)
        thread.start()
        try:
            yield
        finally:
            going.set()
            thread.join(60)
        assert found, "no normal stream ended"
        for texts in found:
            assert texts == self.expected, f"a normal stream: expected {self.expected!r}, got {texts!r}"

    def watch(self, over, found):
        while True:
            last = over.is_set()
            try:
                found.append([self.target.stream(body) for body in STREAMS])
            except (AssertionError, OSError, http.client.HTTPException) as error:
                found.append(repr(error))
            self.peak = max(self.peak, self.running.resident())
            if last:
                return


def one_line(status, body, also=()):
    assert 400 <= status < 500 or status in also, f"expected a 4xx, got {status}: {body[:300]!r}"
    message = json.loads(body)["error"]["message"]
    assert message and "\n" not in message and len(body) < 2000, f"expected one line, got {body[:300]!r}"


def bodies(check, target, watcher):
    for name, body in (hostile_bodies.NOT_JSON | hostile_bodies.WRONG).items():
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with check(f"body: {name}"), watcher.beside():
            one_line(*target.post(hostile_bodies.COMPLETIONS, data))
    for path in ("/v1/chat/completions", "/v1/responses", "/tokenize", "/detokenize", "/v1/exits"):
        with check(f"body: invalid UTF-8, depth and a list to {path}"), watcher.beside():
            for name in ("invalid UTF-8", "lists 100,000 deep", "a list", "an empty body"):
                one_line(*target.post(path, hostile_bodies.NOT_JSON[name]))


def http_that_is_none(check, target, watcher):
    for name, data in hostile_bodies.NOT_HTTP.items():
        with check(f"HTTP: {name}"), watcher.beside():
            answer = target.raw(data)
            assert answer is not None, f"expected an error or an end within {SOON} s, got neither"
            status = answer.split(b" ")[1][:1] if answer.startswith(b"HTTP/") else b"4"
            assert status == b"4" or answer.split(b" ")[1] == b"505", f"expected a 4xx, got {answer[:200]!r}"


def endless(check, target, watcher):
    with check("body: without an end, in chunks"), watcher.beside():
        sent, chunk = 0, b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
        with target.connect() as link:
            head = hostile_bodies.HEAD + b"transfer-encoding: chunked\r\n\r\n"
            link.sendall(head.replace(b"HOST", f"{target.host}:{target.port}".encode()))
            try:
                while sent < 1 << 28:
                    link.sendall(chunk)
                    sent += len(chunk)
            except (BrokenPipeError, ConnectionResetError):
                pass
        assert sent < 1 << 28, "it took 256 MB of one body"


def opened(target, count):
    """So many connections, or as many as there are before one fails."""
    found = []
    for _ in range(count):
        try:
            found.append(target.connect())
        except OSError:
            break
    return found


def closed(links):
    """How many of them the other side has closed."""
    count = 0
    with selectors.DefaultSelector() as selector:
        for link in links:
            link.setblocking(False)
            selector.register(link, selectors.EVENT_READ)
        for key, _ in selector.select(0):
            try:
                count += key.fileobj.recv(4096) == b""
            except OSError:
                count += 1
    return count


def slow(check, target, watcher, seconds):
    host = f"{target.host}:{target.port}".encode()
    head = hostile_bodies.HEAD.replace(b"HOST", host)
    kinds = {"a head, byte by byte": head, "a body, byte by byte": head + b"content-length: 5000\r\n\r\n" + b" " * 5000}
    for name, data in kinds.items():
        with check(f"slow: {name}, 200 clients"), watcher.beside():
            links, begun = opened(target, 200), time.monotonic()
            whole = data.find(b"\r\n\r\n") + 4
            for link in links:
                link.setblocking(False)
                if whole > 4:
                    link.send(data[:whole])
            place = whole if whole > 4 else 0
            while time.monotonic() - begun < seconds:
                for link in links:
                    with contextlib.suppress(OSError):
                        link.send(data[place : place + 1])
                place += 1
                time.sleep(0.5)
            print(f"       of {len(links)}, {closed(links)} were closed within {seconds} s")
            for link in links:
                link.close()


def half_open(check, target, watcher, seconds):
    head = hostile_bodies.HEAD.replace(b"HOST", f"{target.host}:{target.port}".encode())
    started = head + b"content-length: 100\r\n\r\n" + b'{"prompt": "'
    body = json.dumps(STREAMS[0] | {"max_tokens": 400}).encode()
    streaming = head + f"content-length: {len(body)}\r\n\r\n".encode() + body
    for name, data in {"nothing": b"", "half a body": started, "a stream that nobody reads": streaming}.items():
        with check(f"half-open: {name}, 200 clients"), watcher.beside():
            links = opened(target, 200 if data != streaming else 2)
            for link in links:
                link.sendall(data)
                if data == started:
                    link.shutdown(socket.SHUT_WR)
            time.sleep(seconds / 3)
            for link in links:
                link.close()


def many(check, target, watcher, count):
    with check(f"{count} connections at once"), watcher.beside():
        links, begun = opened(target, count), time.monotonic()
        for link in links:
            link.setblocking(False)
            with contextlib.suppress(OSError):
                link.send(b"POST /v1/completions HTTP/1.1\r\n")
        print(f"       {len(links)} opened, {closed(links)} of them closed by the server")
        assert len(links) >= count // 2, f"only {len(links)} could be opened"
        time.sleep(max(0.0, 3 - (time.monotonic() - begun)))
        for link in links:
            link.close()


def raise_limit(count):
    """So that this process, and the server that it starts, may have so many files open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + 1000
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        return count
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(count, hard - 500)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10, help="of every slow attack")
    parser.add_argument("--growth", type=int, default=400, help="MB that the resident size may grow by")
    given = parser.parse_args()
    count = raise_limit(given.connections)
    check = checks.Checks("hostile clients", "-")
    with server.Server(given.offramp, "--max-texts", 8) as running:
        target = Target(running.url)
        watcher = Watcher(target, running)
        before = watcher.peak
        bodies(check, target, watcher)
        http_that_is_none(check, target, watcher)
        endless(check, target, watcher)
        slow(check, target, watcher, given.seconds)
        half_open(check, target, watcher, given.seconds)
        many(check, target, watcher, count)
        with check("afterwards it answers, and memory is bounded"), watcher.beside():
            time.sleep(1)
            now = running.resident()
            sizes = f"{before / 1e6:.0f} MB before, {watcher.peak / 1e6:.0f} at most, {now / 1e6:.0f} now"
            print(f"       {sizes}")
            assert watcher.peak - before <= given.growth * 1e6, f"it grew by more than {given.growth} MB: {sizes}"
    check.finish()


if __name__ == "__main__":
    main()
