"""`offramp serve` as a child process, on a port of its own choice."""

import re
import subprocess
import threading
from pathlib import Path

START = 120  # seconds that it may take to listen


class Server:
    def __init__(self, binary, *arguments):
        self.command = [str(Path(binary).resolve()), "serve", *map(str, arguments), "--port", "0"]
        self.url, self.last = None, ""
        self.listening = threading.Event()
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
        self.process = subprocess.Popen(self.command, **pipes)
        threading.Thread(target=self.read, daemon=True).start()
        if not self.listening.wait(START) or not self.url:
            self.stop()
            raise SystemExit(f"it does not listen: {' '.join(self.command)}\n{self.last}")

    def read(self):
        for line in self.process.stderr:
            self.last = line
            if found := re.search(r"listening on (http://\S+)", line):
                self.url = found[1]
                self.listening.set()
        self.listening.set()  # it ended

    def __enter__(self):
        return self

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
