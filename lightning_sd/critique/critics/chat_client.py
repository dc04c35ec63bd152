"""A small client for OpenAI-compatible servers with retries, a rate limit and a secret key."""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

_RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_FATAL_STATUS = frozenset({401, 403, 404, 405})
_MAX_ANSWER_BYTES = 16 * 2**20
_MAX_EXCERPT_BYTES = 300
_MAX_WAIT_SECONDS = 60.0


class ServerError(Exception):
    """An error of one request.

    Attributes:
        kind: ``connection``, ``timeout``, ``status``, ``malformed`` or ``stopped``.
        status: HTTP status code, or None if there was no answer.
        retry: Whether another try may succeed.
        wait: Seconds that the server asks the client to wait, or None.
        fatal: Whether every other request would fail in the same way.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        status: int | None = None,
        retry: bool = True,
        wait: float | None = None,
        fatal: bool = False,
    ) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.status, self.retry, self.wait = kind, status, retry, wait
        self.fatal = fatal


class RateLimit:
    """Spaces the starts of requests evenly, and pauses all of them when the server asks for it.

    Args:
        per_minute: Requests per minute; None sets no limit.
    """

    def __init__(self, per_minute: float | None = None) -> None:
        self.per_minute = per_minute
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._next_start = 0.0
        self._lock = threading.Lock()

    def __getstate__(self) -> float | None:
        return self.per_minute

    def __setstate__(self, per_minute: float | None) -> None:
        self.__init__(per_minute)  # type: ignore[misc]

    def reserve_start(self) -> float:
        """Reserve the next start time and return the seconds until then."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + self._interval
            return start - now

    def pause(self, seconds: float) -> None:
        """Let no request start for this many seconds."""
        with self._lock:
            self._next_start = max(self._next_start, time.monotonic() + seconds)


@dataclass(frozen=True)
class ChatClient:
    """Posts chat requests. The key is read from the environment each time and never stored.

    Raises:
        ValueError: The URL is not an HTTP URL, or it holds a password or a query.
    """

    url: str
    """Base URL, such as ``http://localhost:8000/v1``."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None sends no key."""
    timeout: float = 120.0
    """Seconds per try, from its start to the last byte."""
    retries: int = 5
    """Number of tries after the first."""
    backoff: float = 0.5
    """Upper bound of the wait before the second try, in seconds. The bound doubles with each try;
    the wait is drawn uniformly below it."""
    limit: RateLimit = field(default_factory=RateLimit)
    stop: threading.Event = field(default_factory=threading.Event)
    """When set, waiting requests give up."""

    def __post_init__(self) -> None:
        # The messages never quote the URL: whatever is wrong with it, it may hold a password.
        if any(mark in self.url for mark in "@?#"):
            raise ValueError(
                "url: it holds a password, a query or a fragment, which would be written to "
                "configs, logs and checkpoints. Put the key into an environment variable and name "
                "that variable in api_key_env."
            )
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a malformed port or IPv6 address
            valid = False
        if not valid:
            raise ValueError("url: it is not an HTTP URL. Write it as http://host:port/v1.")

    def check_key(self) -> None:
        """Check that the environment variable of the key is set.

        Raises:
            ValueError: The variable is missing or empty.
        """
        if self.api_key_env is not None and not os.environ.get(self.api_key_env):
            raise ValueError(
                f"api_key_env={self.api_key_env!r}: this environment variable is not set. Export "
                "it before the run."
            )

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post one request, and repeat it after errors that may pass.

        Args:
            body: JSON body of ``/chat/completions``.

        Returns:
            The first choice: ``text``, ``finish_reason`` and ``tokens`` (generated tokens).

        Raises:
            ServerError: All tries failed. The message holds the last error and the number of tries.
        """
        for number in range(1, self.retries + 2):
            try:
                self._wait(self.limit.reserve_start())
                return _read_choice(self._post(body))
            except ServerError as error:
                if not error.retry or number > self.retries:
                    error.args = (f"{error} (try {number})",)
                    raise
                if error.wait is not None:
                    self.limit.pause(min(error.wait, _MAX_WAIT_SECONDS))
                longest = min(self.backoff * 2 ** (number - 1), _MAX_WAIT_SECONDS)
                self._wait(random.uniform(0, longest))
        raise AssertionError("unreachable")

    def _wait(self, seconds: float) -> None:
        if self.stop.wait(seconds) if seconds > 0 else self.stop.is_set():
            raise ServerError("stopped", "the run ended", retry=False)

    def _post(self, body: Mapping[str, Any]) -> bytes:
        key = os.environ.get(self.api_key_env, "") if self.api_key_env else ""
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions",
            data=json.dumps(body).encode(),
            headers=headers,
            method="POST",
        )
        try:
            return self._read_answer(request)
        except ServerError:
            raise
        except urllib.error.HTTPError as error:
            raise _convert_status_error(error, key) from None
        except TimeoutError:
            raise ServerError("timeout", f"no answer within {self.timeout} s") from None
        except (OSError, http.client.HTTPException) as error:
            timed_out = isinstance(getattr(error, "reason", None), TimeoutError)
            kind = "timeout" if timed_out else "connection"
            raise ServerError(kind, _hide_key(f"{type(error).__name__}: {error}", key)) from None

    def _read_answer(self, request: urllib.request.Request) -> bytes:
        """Read the whole answer, limited in time and size."""
        deadline = time.monotonic() + self.timeout
        parts: list[bytes] = []
        size = 0
        with _OPENER.open(request, timeout=self.timeout) as response:
            while part := response.read1(65536):
                parts.append(part)
                size += len(part)
                # The socket's own timeout restarts with every byte, so the total is checked here.
                if time.monotonic() > deadline:
                    raise ServerError("timeout", f"no end of the answer within {self.timeout} s")
                if size > _MAX_ANSWER_BYTES:
                    raise ServerError("malformed", f"an answer of more than {size} bytes")
            if response.length:
                raise ServerError("malformed", f"{response.length} bytes of the answer are missing")
        return b"".join(parts)


class _RefuseRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, because a redirected request would carry the key to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_RefuseRedirects)


def _read_choice(data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
        choice = answer["choices"][0]
        text = choice["message"]["content"]
        usage = answer.get("usage") or {}
        tokens = int(usage.get("completion_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ServerError(
            "malformed", f"the answer is no chat completion ({type(error).__name__})"
        ) from None
    if text is None:  # some servers send null when a model generated only thinking
        text = ""
    if not isinstance(text, str):
        raise ServerError("malformed", f"the answer's content is {type(text).__name__}, not text")
    return {"text": text, "finish_reason": choice.get("finish_reason"), "tokens": tokens}


def _convert_status_error(error: urllib.error.HTTPError, key: str) -> ServerError:
    try:
        excerpt = error.read(_MAX_EXCERPT_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        excerpt = ""
    finally:
        error.close()
    message = " ".join(f"{error.code} {_hide_key(excerpt, key)}".split())
    return ServerError(
        "status",
        message,
        status=error.code,
        retry=error.code in _RETRIED_STATUS,
        wait=_parse_retry_after(error.headers.get("Retry-After")),
        fatal=error.code in _FATAL_STATUS,
    )


def _parse_retry_after(value: str | None) -> float | None:
    """Return the seconds to wait, from a number of seconds or an HTTP date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _hide_key(text: str, key: str) -> str:
    """Replace the key in a text, because some servers quote it in their errors."""
    return text.replace(key, "***") if key else text
