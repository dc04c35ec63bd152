"""A critic behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, or a hosted one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from lightning_sd.critique.base import Critic, CritiqueRequest, failed
from lightning_sd.critique.check import CHECK_VERSION, checked
from lightning_sd.critique.critics.http import ChatClient, RateLimit, ServerError
from lightning_sd.critique.critics.wording import FAITHFUL_SCRIBE, check_prompt, write_prompt
from lightning_sd.tasks.base import Task
from lightning_sd.text.thinking import strip_thinking
from lightning_sd.types import Critique

_ROUNDS = 8


class ServerCritic(Critic):
    """Asks a server, many requests at a time; each answer is cached when it comes.

    What fails after all retries is not cached; it is counted, listed, and asked again next time.
    A server that refuses the key or does not know the model ends the run at once.

    Args:
        model: Its name on the server.
        url: Such as ``http://localhost:8000/v1``.
        api_key_env: Name of the environment variable that holds the key; none: no key is sent. The
            key itself is never kept, logged or saved.
        revision: Whatever tells these weights from others of the name: revision, quantisation,
            dtype. With it critiques are shared by all servers of the model; without it the URL is
            part of the critic's identity.
        max_new_tokens: Longest critique, its thinking included.
        concurrency: Requests at a time.
        timeout: Seconds for one attempt.
        retries: Attempts after the first, at growing random distances.
        requests_per_minute: None: no limit.
        prompt: See :class:`LMCritic`.
        include_reference: See :class:`LMCritic`.
        body: More fields of the request, such as ``{"chat_template_kwargs": {...}}``.

    Raises:
        ValueError: A setting out of range, a prompt that cannot work, or a URL with a password.
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
        positive: dict[str, float] = {
            "max_new_tokens": max_new_tokens,
            "concurrency": concurrency,
            "timeout": timeout,
            "requests_per_minute": 1.0 if requests_per_minute is None else requests_per_minute,
        }
        for name, value in positive.items():
            if value <= 0:
                raise ValueError(f"{name}={value}: must be above 0.")
        if retries < 0:
            raise ValueError(f"retries={retries}: must be 0 or more.")
        check_prompt(prompt)
        self.model, self.url, self.api_key_env, self.revision = model, url, api_key_env, revision
        self.max_new_tokens, self.concurrency = max_new_tokens, concurrency
        self.timeout, self.retries = timeout, retries
        self.requests_per_minute = requests_per_minute
        self.prompt, self.include_reference = prompt, include_reference
        self.body = body
        self.batch_size = concurrency * _ROUNDS
        self._limit = RateLimit(requests_per_minute)
        self._client(threading.Event())  # refuses a URL that cannot work

    def setup(self, task: Task) -> None:
        """Make sure that the key is there.

        Raises:
            ValueError: The environment variable is not set.
        """
        self._client(threading.Event()).check_key()

    def identity(self) -> Mapping[str, Any]:
        """Model, revision (or URL), prompt and decoding."""
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
        """Write one critique a request; see :meth:`Critic.critique`."""
        found = dict(self.stream(requests))
        return [found[i] for i in range(len(requests))]

    def stream(self, requests: Sequence[CritiqueRequest]) -> Iterator[tuple[int, Critique]]:
        """Critiques in the order in which the server answers.

        Raises:
            ServerError: The server refuses all requests (wrong key, unknown model).
        """
        stop = threading.Event()
        client = self._client(stop)
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="critic")
        todo = iter(range(len(requests)))
        running: dict[Future[Critique], int] = {}
        try:
            while True:
                for i in todo:
                    running[pool.submit(self._ask, client, requests[i])] = i
                    if len(running) >= self.concurrency:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, client: ChatClient, request: CritiqueRequest) -> Critique:
        start = time.perf_counter()
        text = write_prompt(self.prompt, request, include_reference=self.include_reference)
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
            return failed(str(error))
        written = answer["text"]
        # Servers leave out the opening tag if the chat template wrote it.
        opened = "</think>" in written and "<think>" not in written
        return checked(
            strip_thinking(written, opened=opened),
            request,
            tokens=answer["tokens"],
            seconds=time.perf_counter() - start,
            complete=answer["finish_reason"] != "length",
        )

    def _client(self, stop: threading.Event) -> ChatClient:
        return ChatClient(
            self.url,
            self.api_key_env,
            timeout=self.timeout,
            retries=self.retries,
            limit=self._limit,
            stop=stop,
        )
