"""Let the teacher answer questions itself, to compare it with the student."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.rollout.seeding import make_batch_generator
from lightning_sd.types import Rollout, StepOutput


def sample_teacher_answers(
    module: SelfDistillModule, output: StepOutput, index: int, stage: str
) -> list[Rollout | None]:
    """Let the teacher answer the question of each attempt once, from the context's prompt.

    Args:
        module: Has the teacher's parameters and the sampler.
        output: Attempts and views of one batch.
        index: Index of the batch; together with ``stage`` it determines the random numbers.
        stage: Name of the measurement.

    Returns:
        One judged answer per attempt, in order; None for an attempt without a view.
    """
    prompts = [
        None if view is None else module.encode(view.messages, view.template_kwargs)
        for view in output.views
    ]
    return sample_answers(module, output.rollouts, prompts, index, stage)


def sample_answers(
    module: SelfDistillModule,
    rollouts: Sequence[Rollout],
    prompts: Sequence[Sequence[int] | None],
    index: int,
    stage: str,
    *,
    prefixes: Sequence[Sequence[int]] | None = None,
    teacher: bool = True,
) -> list[Rollout | None]:
    """Sample one answer to the question of each attempt, from a prompt of the caller's.

    Args:
        module: Has the parameters and the sampler.
        rollouts: The attempts.
        prompts: Token ids per attempt; None: no answer.
        index: Index of the batch; together with ``stage`` it determines the random numbers.
        stage: Name of the measurement.
        prefixes: Token ids that each answer begins with. Default: none.
        teacher: Whether the teacher's parameters answer, and not the student's.

    Returns:
        One judged answer per attempt, in order, with its prefix; None for one without a prompt.
    """
    starts = prefixes or [()] * len(prompts)
    asked = [(i, (*prompt, *starts[i])) for i, prompt in enumerate(prompts) if prompt is not None]
    if not asked:
        return [None] * len(prompts)
    with module.gather_writer(teacher=teacher):
        completions = module.sampler.sample(
            module.student,
            [list(prompt) for _, prompt in asked],
            samples=1,
            stop_ids=module.stop_ids,
            generator=make_batch_generator(
                module.seed, stage, index, module.global_rank, module.device
            ),
        )
    # The verifier judges them as answers to the plain question, without the context.
    answers = []
    for group, ((i, _), completion) in enumerate(zip(asked, completions, strict=True)):
        ids = (*starts[i], *completion.ids)
        text = module.tokenizer.decode(ids, skip_special_tokens=True)
        question = rollouts[i].question
        answers.append(
            Rollout(question, ids=ids, text=text, group=group, finished=completion.finished)
        )
    judged = module.gather_evidence(answers, frozenset())
    by_attempt = {i: answer for (i, _), answer in zip(asked, judged, strict=True)}
    return [by_attempt.get(i) for i in range(len(prompts))]
