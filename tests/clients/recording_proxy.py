"""A server between a client and another server that notes when each request came and how it was answered.

It works for every client, whatever HTTP library that uses inside.
"""

import http.client
import http.server
import threading
import time
import urllib.parse

PASSED_ON = ("content-type", "authorization")
PASSED_BACK = ("content-type", "retry-after", "x-request-id")


class RecordingProxy:
    """Its `url` stands for the other server's; `seen` holds when each request came and was answered, and how."""

    def __init__(self, url):
        self.target = urllib.parse.urlsplit(url)
        self.seen = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def ask(self, method, path, body, headers):
        connection = http.client.HTTPConnection(self.target.hostname, self.target.port, timeout=60)
        try:
            connection.request(method, path, body, {name: headers[name] for name in PASSED_ON if name in headers})
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()
        finally:
            connection.close()

    def handler(proxy):  # noqa: N805: the handler's own `self` is the request
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                came = time.monotonic()
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                status, headers, answer = proxy.ask(self.command, self.path, body, self.headers)
                proxy.seen.append((came, time.monotonic(), status, headers.get("retry-after")))
                self.send_response(status)
                for name in PASSED_BACK:
                    if headers.get(name):
                        self.send_header(name, headers[name])
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST

        return Handler
