"""A server as a child process: started, waited for, looked at, stopped."""

import contextlib
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

START = 600  # seconds that loading may take


class Server:
    """`offramp serve` on a port of its own choice, or another command whose URL is known."""

    def __init__(self, command, url=None, environment=None):
        self.command, self.url = [str(word) for word in command], url
        self.environment, self.process = environment, None
        self.lines = []  # the last of standard error

    def __enter__(self):
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
        self.process = subprocess.Popen(self.command, env=self.environment, **pipes)
        listening = threading.Event()
        threading.Thread(target=self.read, args=(listening,), daemon=True).start()
        try:
            self.wait(listening)
        except BaseException:
            self.stop()
            raise
        return self

    def read(self, listening):
        for line in self.process.stderr:
            self.lines = [*self.lines[-50:], line]
            found = re.search(r"listening on (http://\S+)", line)
            if found and not self.url:
                self.url = found[1]
                listening.set()

    def wait(self, listening):
        end = time.monotonic() + START
        while time.monotonic() < end and self.process.poll() is None:
            if listening.is_set() or (self.url and self.healthy()):
                return
            time.sleep(0.05)
        raise SystemExit(f"it did not start: {' '.join(self.command)}\n{''.join(self.lines)}")

    def healthy(self):
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:
                return reply.status == 200
        except (OSError, urllib.error.HTTPError):
            return False

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def resident(self):
        """Bytes of memory that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def metric(self, name):
        """The sum of a metric over its labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as reply:
            return metric(reply.read().decode(), name)


def metric(text, name):
    lines = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})?\s+(\S+)", text, re.MULTILINE)
    if not lines:
        raise SystemExit(f"/metrics has no {name}")
    return sum(map(float, lines))


def offramp(binary, *arguments):
    """`offramp serve` with these arguments; those that are None or empty are left out."""
    given = [str(argument) for argument in arguments if argument not in (None, "")]
    return Server([Path(binary).resolve(), "serve", *given, "--port", 0])


@contextlib.contextmanager
def running(url, binary, *arguments):
    """A server that runs already, or one that is started for as long as this lasts."""
    if url:
        yield Running(url)
    else:
        with offramp(binary, *arguments) as server:
            yield server


class Running(Server):
    """A server that someone else started: it has a URL, and no process to look at."""

    def __init__(self, url):
        super().__init__([], url)

    def resident(self):
        return None
