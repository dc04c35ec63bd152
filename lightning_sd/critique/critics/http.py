"""A small client for OpenAI-compatible servers: retries, a rate limit, a key that stays secret."""

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

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_FATAL = frozenset({401, 403, 404, 405})
_LARGEST_ANSWER = 16 * 2**20
_EXCERPT = 300
_LONGEST_WAIT = 60.0


class ServerError(Exception):
    """What went wrong with one request.

    Attributes:
        kind: ``connection``, ``timeout``, ``status``, ``malformed`` or ``stopped``.
        status: Of HTTP, if there was an answer.
        retry: Whether another attempt may go better.
        wait: Seconds that the server asks to wait.
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
    """Lets requests start at even distances, and all of them pause when the server says so.

    Args:
        per_minute: Requests a minute; None: as many as come.
    """

    def __init__(self, per_minute: float | None = None) -> None:
        self.per_minute = per_minute
        self._distance = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def __getstate__(self) -> float | None:
        return self.per_minute

    def __setstate__(self, per_minute: float | None) -> None:
        self.__init__(per_minute)  # type: ignore[misc]

    def delay(self) -> float:
        """Take the next start; returns the seconds until it."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._distance
            return start - now

    def pause(self, seconds: float) -> None:
        """Let nothing start for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


@dataclass(frozen=True)
class ChatClient:
    """Posts chat requests. The key is read from the environment each time and kept nowhere.

    Raises:
        ValueError: A URL that is none, or that holds a password.
    """

    url: str
    """Such as ``http://localhost:8000/v1``."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None: no key is sent."""
    timeout: float = 120.0
    """Seconds for one attempt, from its start to the last byte."""
    retries: int = 5
    """Attempts after the first."""
    backoff: float = 0.5
    """Longest wait before the second attempt, in seconds; it doubles with each, at random below."""
    limit: RateLimit = field(default_factory=RateLimit)
    stop: threading.Event = field(default_factory=threading.Event)
    """Set: waiting requests give up."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url={self.url!r}: write it as http://host:port/v1.")
        if "@" in parts.netloc or parts.query:
            raise ValueError(
                "url: it holds a password or a query, which would be written to configs and "
                "checkpoints. Put the key into the environment and name it by api_key_env."
            )

    def check_key(self) -> None:
        """Make sure that the key is there.

        Raises:
            ValueError: The environment variable is missing or empty.
        """
        if self.api_key_env is not None and not os.environ.get(self.api_key_env):
            raise ValueError(
                f"api_key_env={self.api_key_env!r}: this environment variable is not set."
            )

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post one request, again after failures that may pass.

        Args:
            body: As ``/chat/completions`` takes it.

        Returns:
            The first choice: ``text``, ``finish_reason`` and ``tokens``.

        Raises:
            ServerError: No attempt gave an answer; the message counts them and tells the last.
        """
        for attempt in range(1, self.retries + 2):
            try:
                self._wait(self.limit.delay())
                return _choice(self._post(body))
            except ServerError as error:
                if not error.retry or attempt > self.retries:
                    error.args = (f"{error} (attempt {attempt})",)
                    raise
                if error.wait is not None:
                    self.limit.pause(min(error.wait, _LONGEST_WAIT))
                longest = min(self.backoff * 2 ** (attempt - 1), _LONGEST_WAIT)
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
            return self._read(request)
        except ServerError:
            raise
        except urllib.error.HTTPError as error:
            raise _status_error(error, key) from None
        except TimeoutError:
            raise ServerError("timeout", f"no answer within {self.timeout} s") from None
        except (OSError, http.client.HTTPException) as error:
            timed_out = isinstance(getattr(error, "reason", None), TimeoutError)
            kind = "timeout" if timed_out else "connection"
            raise ServerError(kind, _hidden(f"{type(error).__name__}: {error}", key)) from None

    def _read(self, request: urllib.request.Request) -> bytes:
        """Read the whole answer, bounded in time and size."""
        deadline = time.monotonic() + self.timeout
        parts: list[bytes] = []
        size = 0
        with _OPENER.open(request, timeout=self.timeout) as response:
            while part := response.read1(65536):
                parts.append(part)
                size += len(part)
                # The socket's own limit starts anew with every byte.
                if time.monotonic() > deadline:
                    raise ServerError("timeout", f"no end of the answer within {self.timeout} s")
                if size > _LARGEST_ANSWER:
                    raise ServerError("malformed", f"an answer of more than {size} bytes")
            if response.length:
                raise ServerError("malformed", f"{response.length} bytes of the answer are missing")
        return b"".join(parts)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected request would carry the key to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _choice(data: bytes) -> dict[str, Any]:
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
    if text is None:  # some servers say so when a model wrote nothing but its thinking
        text = ""
    if not isinstance(text, str):
        raise ServerError("malformed", f"the answer's content is {type(text).__name__}, not text")
    return {"text": text, "finish_reason": choice.get("finish_reason"), "tokens": tokens}


def _status_error(error: urllib.error.HTTPError, key: str) -> ServerError:
    try:
        excerpt = error.read(_EXCERPT).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        excerpt = ""
    finally:
        error.close()
    message = " ".join(f"{error.code} {_hidden(excerpt, key)}".split())
    return ServerError(
        "status",
        message,
        status=error.code,
        retry=error.code in _RETRIED,
        wait=_retry_after(error.headers.get("Retry-After")),
        fatal=error.code in _FATAL,
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number or a date."""
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


def _hidden(text: str, key: str) -> str:
    """Some servers quote the key in their error."""
    return text.replace(key, "***") if key else text
