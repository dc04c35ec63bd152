"""Judge and criticize one part of a batch while the next part is sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from lightning_sd.rollout.threads import start_worker
from lightning_sd.types import Question, Rollout

Sample = Callable[[Sequence[Question]], Sequence[Rollout]]
Evidence = Callable[[Sequence[Rollout]], Sequence[Rollout]]


def gather_while_sampling(
    sample: Sample, evidence: Evidence, questions: Sequence[Question], parts: int
) -> list[Rollout]:
    """Sample a batch in parts, and gather the evidence about each part in a second thread.

    It pays where evidence is waited for rather than computed on the same device: a critic on a
    server or another GPU, a verifier that runs programs. It stays on-policy, because the parameters
    do not change within a batch.

    Args:
        sample: Samples rollouts of some questions, with ``group`` counted from 0. Runs in this
            thread.
        evidence: Judges and criticizes rollouts. Runs in one other thread, one part after the
            other; at most one more part waits for it, then sampling waits.
        questions: A batch.
        parts: Number of equal parts. 1: sample all, then gather, without a thread.

    Returns:
        The rollouts with their evidence in the order of ``questions``; ``group`` counts over the
        whole batch.

    Raises:
        ValueError: ``parts`` is below 1.
        Exception: Any exception of ``sample`` or ``evidence``. No further part is started; the part
            that the critic works on is finished first, so its critiques are not lost.

    Example:
        >>> from lightning_sd.types import Question
        >>> def sample(questions):
        ...     return [Rollout(q, (), "", group) for group, q in enumerate(questions)]
        >>> batch = [Question(name, "", ()) for name in "abc"]
        >>> [(r.question.id, r.group) for r in gather_while_sampling(sample, list, batch, 2)]
        [('a', 0), ('b', 1), ('c', 2)]
    """
    if parts < 1:
        raise ValueError(f"parts={parts}: must be at least 1.")
    ends = [len(questions) * (i + 1) // parts for i in range(parts)]
    spans = [(a, b) for a, b in zip([0, *ends], ends, strict=False) if a < b]
    if len(spans) < 2:
        return list(evidence(sample(questions)))
    gathered: list[Future[Sequence[Rollout]]] = []
    with _start_worker() as worker:
        for first, end in spans:
            sampled = sample(questions[first:end])
            rollouts = [replace(rollout, group=rollout.group + first) for rollout in sampled]
            if len(gathered) > 1:
                gathered[-2].result()
            last = gathered[-1] if gathered else None
            if last is not None and last.done():
                last.result()
            gathered.append(worker.submit(_run_after, last, evidence, rollouts))
        return [rollout for future in gathered for rollout in future.result()]


def _run_after(
    last: Future[Sequence[Rollout]] | None, evidence: Evidence, rollouts: Sequence[Rollout]
) -> Sequence[Rollout]:
    if last is not None:
        last.result()  # raises again what stopped the part before
    return evidence(rollouts)


@contextmanager
def _start_worker() -> Iterator[ThreadPoolExecutor]:
    pool = start_worker("evidence")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
