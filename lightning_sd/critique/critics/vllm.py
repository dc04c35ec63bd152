"""A critic in vLLM, in this process. Not run by the project's tests: they have no GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.critique.check import CHECK_VERSION, checked
from lightning_sd.critique.critics.wording import FAITHFUL_SCRIBE, check_prompt, write_prompt
from lightning_sd.models import PretrainedModel
from lightning_sd.models.fingerprint import source_fingerprint
from lightning_sd.text.thinking import strip_thinking
from lightning_sd.types import Critique


class VLLMCritic(Critic):
    """A large critic by vLLM's offline engine, which batches by itself.

    The engine starts at the first request, so a run whose critiques are all cached never starts it.
    Its calls are tested against a stand-in only; on a real GPU it has not been run here.

    Args:
        model: Hub name or folder.
        revision: Branch, tag or commit on the hub.
        max_new_tokens: Longest critique, its thinking included.
        batch_size: Requests that are handed over at once.
        prompt: See :class:`LMCritic`.
        include_reference: See :class:`LMCritic`.
        engine: More arguments of ``vllm.LLM``, such as ``{"tensor_parallel_size": 2,
            "quantization": "awq", "dtype": "bfloat16"}``; they are part of the identity.

    Raises:
        ValueError: A setting out of range, or a prompt that cannot work.
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
        """Model, revision and weights, engine options, prompt and decoding.

        The weights' fingerprint is None until the model has been downloaded.
        """
        return {
            "critic": "vllm",
            "model": self.model,
            "revision": self.revision,
            "weights": source_fingerprint(PretrainedModel(self.model, revision=self.revision)),
            "engine": self.engine or {},
            "prompt": self.prompt,
            "include_reference": self.include_reference,
            "decoding": {"greedy": True, "max_new_tokens": self.max_new_tokens},
            "check": CHECK_VERSION,
        }

    def critique(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Write the critiques of one batch; see :meth:`Critic.critique`."""
        vllm = _vllm()
        if self._llm is None:
            self._llm = vllm.LLM(model=self.model, revision=self.revision, **(self.engine or {}))
        start = time.perf_counter()
        texts = [
            write_prompt(self.prompt, request, include_reference=self.include_reference)
            for request in requests
        ]
        outputs = self._llm.chat(
            [[{"role": "user", "content": text}] for text in texts],
            vllm.SamplingParams(temperature=0.0, max_tokens=self.max_new_tokens),
            use_tqdm=False,
        )
        seconds = (time.perf_counter() - start) / max(len(requests), 1)
        return [
            _critique(output.outputs[0], request, seconds)
            for output, request in zip(outputs, requests, strict=True)
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_llm": None}


def _critique(completion: Any, request: CritiqueRequest, seconds: float) -> Critique:
    text = completion.text
    return checked(
        # The opening tag is missing if the chat template wrote it.
        strip_thinking(text, opened="</think>" in text and "<think>" not in text),
        request,
        tokens=len(completion.token_ids),
        seconds=seconds,
        complete=completion.finish_reason != "length",
    )


def _vllm() -> Any:
    try:
        import vllm
    except ImportError as error:
        raise ImportError('VLLMCritic needs vLLM: pip install "lightning_sd[vllm]"') from error
    return vllm
