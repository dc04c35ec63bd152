"""Sample from a vLLM server on other devices, which follows the student's weights."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from lightning_sd.rollout.base import Completion
from lightning_sd.rollout.engine_sampler import EngineSampler
from lightning_sd.rollout.seeding import draw_requests
from lightning_sd.rollout.vllm_weights import check_servable, iterate_weights, read_version

_SENT: dict[str, tuple[Any, ...]] = {}
"""The weights that each server has, by its address; samplers of one server share it."""
_LOCKS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""A lock for each server, by its address."""


@dataclass(frozen=True)
class VLLMServerSampler(EngineSampler):
    """Samples from a vLLM server; one server serves all ranks.

    Before each batch rank 0 writes the student's weights, if they changed, to a folder that the
    server sees too, and the server loads them. LoRA adapters are merged into what is written.
    Start the server with the student's model and the environment variable
    ``VLLM_SERVER_DEV_MODE=1``, which lets anyone who reaches it replace its weights: keep it on a
    private network. A key in the environment variable ``VLLM_API_KEY`` is sent along.

    Run and tested on one machine with vLLM 0.32 on a CPU. Not run on a GPU or over a network.

    Raises:
        ValueError: A setting is out of range, or log-probabilities would not be the policy's.
    """

    url: str = "http://127.0.0.1:8000"
    """Address of the server, without a path."""
    weights_dir: str = "out/vllm-weights"
    """Folder for the weights, under the same path here and on the server."""
    timeout: float = 600.0
    """Seconds to wait for an answer before the run stops."""
    concurrency: int = 64
    """Requests at a time, for each rank."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature not in (0.0, 1.0):
            raise ValueError(
                f"temperature={self.temperature}: a vLLM server reports log-probabilities at "
                "temperature 1. Set 1 or 0, or use VLLMSampler."
            )

    def get_lock(self, model: nn.Module) -> threading.Lock:
        """Return this process's lock of the server."""
        return _LOCKS[self.url]

    def draw(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int,
        stop_ids: Sequence[int],
        generator: torch.Generator,
    ) -> list[Completion]:
        """Sample with the weights that the server has; see :meth:`EngineSampler.draw`.

        Raises:
            RuntimeError: The server cannot be reached, or refuses a request.
        """
        stops = [*stop_ids, *self.stop_token_ids]

        def ask(request: tuple[int, int]) -> Completion:
            prompt, seed = request
            body = self._make_request(prompts[prompt], seed, stops)
            return read_completion(self._post("/v1/completions", body), prompt)

        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(ask, draw_requests(prompts, samples, generator)))

    def sync(self, model: nn.Module) -> bool:
        """Let the server load the model's weights if it has others.

        All ranks call it, and go on when the server has the weights.

        Returns:
            Whether the server loaded weights.

        Raises:
            ValueError: The student is quantized or in shards.
            RuntimeError: The server cannot be reached, or refuses the weights.
        """
        check_servable(model)
        version = read_version(model, adapters=True)
        if version == _SENT.get(self.url):
            return False
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if distributed:
            torch.distributed.barrier()  # no rank samples with the old weights any more
        if not distributed or torch.distributed.get_rank() == 0:
            self._send(model)
        if distributed:
            torch.distributed.barrier()
        _SENT[self.url] = version
        return True

    def _send(self, model: nn.Module) -> None:
        parent = Path(self.weights_dir).absolute()
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            # Copies, because a tied head shares its memory, which the format refuses.
            weights = {name: t.cpu().clone() for name, t in iterate_weights(model)}
            save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
            arguments = {"weights_path": folder, "is_checkpoint_format": True}
            self._post("/collective_rpc", {"method": "reload_weights", "kwargs": arguments})
        # Blocks of the prefix cache were computed with the old weights.
        self._post("/reset_prefix_cache", {})

    def _make_request(self, prompt: Sequence[int], seed: int, stops: list[int]) -> dict[str, Any]:
        return {
            "prompt": list(prompt),
            "seed": seed,
            "max_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "logprobs": 0,
            "return_token_ids": True,
            "stop_token_ids": stops,
            "ignore_eos": True,
        }

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("VLLM_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            missing = error.code == 404 and path == "/collective_rpc"
            hint = " Start it with VLLM_SERVER_DEV_MODE=1." if missing else ""
            raise RuntimeError(
                f"sampler: the server refused {path} with {error.code}: "
                f"{error.read()[:300].decode(errors='replace')}.{hint}"
            ) from error
        except OSError as error:
            raise RuntimeError(
                f"sampler: no answer from the server at {path} ({error}). Check `url`, and that "
                f"the server answers within timeout={self.timeout:g} seconds."
            ) from error


def read_completion(answer: Any, prompt: int) -> Completion:
    """Read one answer of ``/v1/completions``.

    Args:
        answer: The decoded JSON.
        prompt: Index of the prompt that it continues.
    """
    (choice,) = answer["choices"]
    return Completion(
        prompt=prompt,
        ids=tuple(choice["token_ids"]),
        logprobs=tuple(choice["logprobs"]["token_logprobs"]),
        finished=choice["finish_reason"] == "stop",
    )
