"""What a step costs, counted and not timed: tokens through the model, bytes held by the loss."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_sd import (
    Distillation,
    LiveTeacher,
    ReferenceSolution,
    SampledToken,
    TransformersSampler,
)
from lightning_sd.objectives import Objective, TokenInputs
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Head, Scores
from tests.stubs import LabData, module, trainer

QUESTIONS, SAMPLES = 8, 16


def forward_shapes(student: Any) -> list[tuple[int, int]]:
    """Rows and columns of everything that goes through the model from now on."""
    seen: list[tuple[int, int]] = []
    embedding = student.get_input_embeddings()
    embedding.register_forward_hook(lambda module, args, out: seen.append(tuple(args[0].shape)))
    return seen


@pytest.mark.parametrize(
    "objective", [Distillation(), Distillation(importance_clip=2.0), SampledToken()], ids=str
)
def test_each_prompt_is_encoded_once_a_group_and_nothing_twice(
    make_llama: Any, tokenizer: Any, tmp_path: Any, objective: Objective
) -> None:
    """By sampler, student and teacher; no pass for old log-probabilities, no row decoded on."""
    model, steps = make_llama(seed=2), []
    settled = module(
        model,
        tokenizer,
        samples=SAMPLES,
        sampler=TransformersSampler(max_new_tokens=9),
        teacher=LiveTeacher(),
        objective=objective,
    )
    seen = forward_shapes(model)
    done = settled.training_step

    def step(*args: Any, **kwargs: Any) -> Any:
        seen.clear()
        result = done(*args, **kwargs)
        steps.append((list(seen), result["step"].rollouts))
        return result

    settled.training_step = step
    run = trainer(tmp_path, ReferenceSolution(), max_steps=2)
    run.fit(settled, datamodule=LabData(batch_size=QUESTIONS))

    shapes, rollouts = steps[-1]  # in the first step the head is looked for
    assert len(rollouts) == QUESTIONS * SAMPLES
    later = max(len(rollout.ids) for rollout in rollouts) - 1
    prompts = [shape for shape in shapes if shape[0] == QUESTIONS]
    assert len(prompts) == 3
    completions = [shape for shape in shapes if shape[1] == later and shape[0] == len(rollouts)]
    assert len(completions) == 2
    decoded = [shape for shape in shapes if shape[1] == 1]
    assert len(decoded) == later
    assert len(shapes) == len(prompts) + len(completions) + len(decoded)


class PeakBytes(TorchDispatchMode):
    """The most bytes that tensors made inside ever held at once.

    Whatever a kernel needs for itself does not count; views count once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = weakref.WeakSet[Any]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage not in self._known and storage.data_ptr() not in inputs:
                self._known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _freed(self, size: int) -> None:
        self.now -= size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def peak_of(work: Callable[[], object]) -> int:
    with PeakBytes() as mode:
        work()
    return mode.peak


def test_peaks_are_counted() -> None:
    """Two of three tensors at once, a view, and one in place."""
    x = torch.ones(1000)

    def work() -> Tensor:
        y = x + 1
        y = (y * 2).view(10, 100)
        return y.add_(1).sum()

    assert peak_of(work) == 2 * 4000


CHUNK, HIDDEN, VOCAB = 32, 8, 2000
OBJECTIVES: list[Objective] = [
    Distillation(kind="forward_kl", chunk_tokens=CHUNK),
    Distillation(kind="reverse_kl", chunk_tokens=CHUNK),
    Distillation(kind="js", chunk_tokens=CHUNK),
    Distillation(kind="js", top_k=20, chunk_tokens=CHUNK),
    SampledToken(chunk_tokens=CHUNK),
]


def loss_peak(objective: Objective, tokens: int, softcap: float | None = None) -> int:
    """Bytes held by loss and backward pass beside the inputs."""
    hidden = torch.randn(tokens, HIDDEN, requires_grad=True)
    weight = torch.randn(VOCAB, HIDDEN, requires_grad=True)
    student = Scores(hidden, Head(weight, softcap=softcap))
    teacher = Scores(torch.randn(tokens, HIDDEN), Head(torch.randn(VOCAB, HIDDEN), softcap=softcap))
    known = TokenInputs(torch.arange(tokens))
    return peak_of(
        lambda: compute_loss(objective, student, teacher, known, [tokens]).total.backward()
    )


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_the_loss_holds_a_chunk_however_many_tokens(
    objective: Objective, softcap: float | None
) -> None:
    few, many = (loss_peak(objective, tokens, softcap) for tokens in (2 * CHUNK, 32 * CHUNK))
    # What grows: the gradient of the hidden states, and some numbers a token. No vocabulary.
    assert (many - few) / (30 * CHUNK) < 4 * (3 * HIDDEN + 40) < 4 * VOCAB / 20


@pytest.mark.parametrize("objective", OBJECTIVES[:3], ids=str)
def test_a_chunk_of_the_loss_is_the_logits_of_both_and_one_block(objective: Objective) -> None:
    """Blocks of rows keep the work on them small; here a chunk is a block."""
    logits, head = 4 * CHUNK * VOCAB, 4 * VOCAB * HIDDEN
    assert loss_peak(objective, 4 * CHUNK) < 7.5 * logits + 1.5 * head
