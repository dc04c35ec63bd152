"""A critic that runs vLLM's offline engine in this process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.critique.check import CHECK_VERSION, check_critique
from lightning_sd.critique.critics.prompts import FAITHFUL_SCRIBE, check_prompt, write_prompt
from lightning_sd.models import PretrainedModel
from lightning_sd.models.fingerprint import fingerprint_source
from lightning_sd.rollout.vllm_engine import import_vllm, start_llm
from lightning_sd.text.thinking import strip_thinking
from lightning_sd.types import Critique


class VLLMCritic(Critic):
    """Prompts a large model through vLLM's offline engine, which forms its own batches.

    The engine starts at the first request, so a run with all critiques in the cache never starts
    it. Run and tested on CPUs with vLLM 0.32. Not run on a GPU.

    Args:
        model: Hub name or folder.
        revision: Branch, tag or commit on the hub.
        max_new_tokens: Maximum number of generated tokens per critique, thinking included.
        batch_size: Requests handed over per call.
        prompt: See :class:`LMCritic`.
        include_reference: See :class:`LMCritic`.
        engine: Further arguments of ``vllm.LLM``, such as ``{"tensor_parallel_size": 2,
            "quantization": "awq", "dtype": "bfloat16"}``. They are part of the critic's identity.

    Raises:
        ValueError: An option is out of range, or the prompt lacks a field.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        max_new_tokens: int = 4096,
        batch_size: int = 256,
        prompt: str = FAITHFUL_SCRIBE,
        include_reference: bool = True,
        engine: dict[str, Any] | None = None,
    ) -> None:
        for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        check_prompt(prompt)
        self.model, self.revision = model, revision
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size
        self.prompt, self.include_reference = prompt, include_reference
        self.engine = engine
        self._llm: Any = None

    def identity(self) -> Mapping[str, Any]:
        """Return the model, revision, weights, engine options, prompt and decoding settings.

        The fingerprint of the weights is None until the model has been downloaded.
        """
        return {
            "critic": "vllm",
            "model": self.model,
            "revision": self.revision,
            "weights": fingerprint_source(PretrainedModel(self.model, revision=self.revision)),
            "engine": self.engine or {},
            "prompt": self.prompt,
            "include_reference": self.include_reference,
            "decoding": {"greedy": True, "max_new_tokens": self.max_new_tokens},
            "check": CHECK_VERSION,
        }

    def critique(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Write the critiques of one batch; see :meth:`Critic.critique`."""
        if self._llm is None:
            self._llm = self._start()
        start = time.perf_counter()
        texts = [
            write_prompt(self.prompt, request, include_reference=self.include_reference)
            for request in requests
        ]
        outputs = self._llm.chat(
            [[{"role": "user", "content": text}] for text in texts],
            import_vllm().SamplingParams(temperature=0.0, max_tokens=self.max_new_tokens),
            use_tqdm=False,
        )
        seconds = (time.perf_counter() - start) / max(len(requests), 1)
        return [
            _read_completion(output.outputs[0], request, seconds)
            for output, request in zip(outputs, requests, strict=True)
        ]

    def _start(self) -> Any:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.model, revision=self.revision)
        return start_llm(self.model, config, {"revision": self.revision, **(self.engine or {})})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_llm": None}


def _read_completion(completion: Any, request: CritiqueRequest, seconds: float) -> Critique:
    text = completion.text
    return check_critique(
        # The opening tag is missing if the chat template wrote it.
        strip_thinking(text, opened="</think>" in text and "<think>" not in text),
        request,
        tokens=len(completion.token_ids),
        seconds=seconds,
        complete=completion.finish_reason != "length",
    )
