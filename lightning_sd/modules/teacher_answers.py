"""Let the teacher answer questions itself, to compare it with the student."""

from __future__ import annotations

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
    viewed = [(i, view) for i, view in enumerate(output.views) if view is not None]
    if not viewed:
        return [None] * len(output.views)
    with module.gather_writer(teacher=True):
        completions = module.sampler.sample(
            module.student,
            [module.encode(view.messages, view.template_kwargs) for _, view in viewed],
            samples=1,
            stop_ids=module.stop_ids,
            generator=make_batch_generator(
                module.seed, stage, index, module.global_rank, module.device
            ),
        )
    # The verifier judges them as answers to the plain question, without the context.
    answers = [
        Rollout(
            question=output.rollouts[i].question,
            ids=completion.ids,
            text=module.tokenizer.decode(completion.ids, skip_special_tokens=True),
            group=group,
            finished=completion.finished,
        )
        for group, ((i, _), completion) in enumerate(zip(viewed, completions, strict=True))
    ]
    judged = module.gather_evidence(answers, frozenset())
    by_attempt = {i: answer for (i, _), answer in zip(viewed, judged, strict=True)}
    return [by_attempt.get(i) for i in range(len(output.views))]
