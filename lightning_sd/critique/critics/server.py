"""A critic on an OpenAI-compatible server: vLLM, SGLang, llama.cpp or a hosted service."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from lightning_sd.critique.base import Critic, CritiqueRequest, make_failure
from lightning_sd.critique.check import CHECK_VERSION, check_critique
from lightning_sd.critique.critics.chat_client import ChatClient, RateLimit, ServerError
from lightning_sd.critique.critics.prompts import (
    FAITHFUL_SCRIBE,
    MAX_PROMPT_CHARS,
    check_prompt,
    write_prompt,
)
from lightning_sd.critique.reasons import PROMPT_TOO_LONG
from lightning_sd.tasks.base import Task
from lightning_sd.text.thinking import strip_thinking
from lightning_sd.types import Critique

_POLL_SECONDS = 0.5
_ROUNDS_PER_BATCH = 8
"""Requests per worker thread in one batch."""


class ServerCritic(Critic):
    """Sends many requests at a time to a server and caches each answer when it arrives.

    A request that still fails after all retries is not cached. It is counted and reported, and sent
    again next time. If the server rejects the key or does not know the model, the run ends at once.

    Args:
        model: Name of the model on the server.
        url: Base URL, such as ``http://localhost:8000/v1``.
        api_key_env: Name of the environment variable that holds the key; None sends no key. The
            key itself is never stored, logged or saved.
        revision: A label for the exact weights behind the model name (revision, quantization,
            dtype). With a label, all servers that use it share their cached critiques. Without one,
            the URL is part of the critic's identity.
        max_new_tokens: Maximum number of generated tokens per critique, thinking included.
        concurrency: Maximum number of simultaneous requests.
        timeout: Seconds per try.
        retries: Tries after the first, with growing random waits between them.
        requests_per_minute: Rate limit; None sets no limit.
        prompt: See :class:`LMCritic`.
        include_reference: See :class:`LMCritic`.
        body: Further fields of the request body, such as ``{"chat_template_kwargs": {...}}``.

    Raises:
        ValueError: An option is out of range, the prompt lacks a field, or the URL holds a
            password.
    """

    def __init__(
        self,
        model: str,
        url: str,
        api_key_env: str | None = None,
        revision: str | None = None,
        max_new_tokens: int = 2048,
        concurrency: int = 16,
        timeout: float = 300.0,
        retries: int = 5,
        requests_per_minute: float | None = None,
        prompt: str = FAITHFUL_SCRIBE,
        include_reference: bool = True,
        body: dict[str, Any] | None = None,
    ) -> None:
        check_prompt(prompt)
        self.model, self.url, self.api_key_env, self.revision = model, url, api_key_env, revision
        self.max_new_tokens, self.concurrency = max_new_tokens, concurrency
        self.timeout, self.retries = timeout, retries
        self.requests_per_minute = requests_per_minute
        self.prompt, self.include_reference = prompt, include_reference
        self.body = body
        self._check_ranges()
        self.batch_size = concurrency * _ROUNDS_PER_BATCH
        self._limit = RateLimit(requests_per_minute)
        self._create_client(threading.Event())  # refuses a malformed URL now

    def setup(self, task: Task) -> None:
        """Check that the environment variable of the key is set.

        Raises:
            ValueError: The variable is missing or empty.
        """
        self._create_client(threading.Event()).check_key()

    def identity(self) -> Mapping[str, Any]:
        """Return the model, revision (or URL), prompt and decoding settings."""
        where = {"url": self.url} if self.revision is None else {"revision": self.revision}
        return {
            "critic": "server",
            "model": self.model,
            **where,
            "prompt": self.prompt,
            "include_reference": self.include_reference,
            "decoding": {"max_tokens": self.max_new_tokens, "temperature": 0, **(self.body or {})},
            "check": CHECK_VERSION,
        }

    def critique(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Write one critique per request; see :meth:`Critic.critique`."""
        critiques = dict(self.stream(requests))
        return [critiques[i] for i in range(len(requests))]

    def stream(self, requests: Sequence[CritiqueRequest]) -> Iterator[tuple[int, Critique]]:
        """Yield critiques in the order in which the server answers.

        Raises:
            ServerError: The server rejects every request (wrong key, unknown model).
        """
        stop = threading.Event()
        client = self._create_client(stop)
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="critic")
        waiting = iter(range(len(requests)))
        running: dict[Future[Critique], int] = {}
        try:
            while True:
                for i in islice(waiting, self.concurrency - len(running)):
                    running[pool.submit(self._ask, client, requests[i])] = i
                if not running:
                    return
                # The timeout lets this thread notice that it is to be stopped.
                for future in wait(running, _POLL_SECONDS, FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, client: ChatClient, request: CritiqueRequest) -> Critique:
        start = time.perf_counter()
        text = write_prompt(self.prompt, request, include_reference=self.include_reference)
        if len(text) > MAX_PROMPT_CHARS:
            return Critique("", "", refused=PROMPT_TOO_LONG)
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self.max_new_tokens,
            "temperature": 0,
            **(self.body or {}),
        }
        try:
            answer = client.chat(body)
        except ServerError as error:
            if error.fatal:
                raise
            return make_failure(str(error))
        answer_text = answer["text"]
        # Servers leave out the opening tag if the chat template wrote it.
        opened = "</think>" in answer_text and "<think>" not in answer_text
        return check_critique(
            strip_thinking(answer_text, opened=opened),
            request,
            tokens=answer["tokens"],
            seconds=time.perf_counter() - start,
            complete=answer["finish_reason"] != "length",
        )

    def _create_client(self, stop: threading.Event) -> ChatClient:
        return ChatClient(
            self.url,
            self.api_key_env,
            timeout=self.timeout,
            retries=self.retries,
            limit=self._limit,
            stop=stop,
        )

    def _check_ranges(self) -> None:
        for name in ("max_new_tokens", "concurrency", "timeout", "requests_per_minute"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value}: must be above 0.")
        if self.retries < 0:
            raise ValueError(f"retries={self.retries}: must be 0 or more.")
