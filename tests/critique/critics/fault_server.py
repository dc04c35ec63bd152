"""An OpenAI-compatible server on loopback that goes wrong on purpose.

With ``upstream`` it is a proxy in front of a real one: what does not go wrong is passed on.
"""

import json
import socket
import threading
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lightning_sd.text.steps import render_steps

GOOD = render_steps(["7+5=2"], "2")


def completion(text=GOOD, finish_reason="stop", tokens=7):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": tokens}}).encode()


class Server(ThreadingHTTPServer):
    """``behave(prompt, attempt)`` names what happens to the attempt-th request of a prompt."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behave, upstream=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.upstream = behave, upstream
        self.lock = threading.Lock()
        self.attempts = Counter()
        self.answered = Counter()
        self.headers_seen = []
        self.bodies = []
        self.running, self.most_running = 0, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """Broken pipes are the point of it."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        with server.lock:
            server.attempts[prompt] += 1
            attempt = server.attempts[prompt]
            server.headers_seen.append(dict(self.headers))
            server.bodies.append(body)
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        self.counts_as_running = True
        try:
            what = server.behave(prompt, attempt)
            if what is None and server.upstream:
                what = forwarded(server.upstream, body)
            self.act(what, prompt)
        finally:
            self.stop_counting()

    def stop_counting(self):
        """Must come before the answer: its last byte lets the client start the next request."""
        with self.server.lock:
            self.server.running -= self.counts_as_running
            self.counts_as_running = False

    def act(self, what, prompt):
        if isinstance(what, str):
            getattr(self, what.replace(" ", "_"))()
        elif isinstance(what, int):
            self.answer(what, f"error {what}: {self.headers['Authorization']}".encode())
        elif isinstance(what, tuple):
            status, headers = what
            self.answer(status, b"", headers)
        else:
            self.answer(200, completion() if what is None else what)
            with self.server.lock:
                self.server.answered[prompt] += 1

    def drop(self):
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def late(self):
        time.sleep(1.5)
        self.answer(200, completion())

    def drip(self):
        data = completion()
        self.head(200, len(data))
        for byte in data[:40]:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.05)

    def half(self):
        data = completion()
        self.head(200, len(data))
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True

    def bad_json(self):
        self.answer(200, b'{"choices": [{"mess')

    def no_choices(self):
        self.answer(200, b'{"choices": []}')

    def html(self):
        self.answer(200, b"<html>Gateway</html>")

    def answer(self, status, data, headers=None):
        self.head(status, len(data), headers)
        self.wfile.write(data)

    def head(self, status, length, headers=None):
        self.stop_counting()
        self.send_response(status)
        for name, value in {"Content-Length": length, **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()


def forwarded(upstream, body):
    request = urllib.request.Request(
        f"{upstream}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read()


@contextmanager
def serving(behave=lambda prompt, attempt: None, upstream=None):
    server = Server(behave, upstream)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
