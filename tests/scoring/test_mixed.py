from __future__ import annotations

import torch

from lightning_sd.scoring import MixedScores, Scores, insert_missing_rows, make_linear_mix
from lightning_sd.scoring.scaled import ScaledLogits
from lightning_sd.scoring.statistics import compute_token_statistics


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def test_the_temperature_reaches_every_part_of_a_mixture() -> None:
    first, second, ids = draw(0, 4, 9), draw(1, 4, 9), torch.tensor([0, 8, 3, 3])
    mixed = MixedScores(
        (Scores(first.clone(), None), Scores(second.clone(), None)), make_linear_mix([0.3, 0.7])
    )
    expected = ((0.3 * first + 0.7 * second) / 1.6).log_softmax(-1)
    found, entropy = compute_token_statistics(mixed, ids, 1.6, entropy=True)
    torch.testing.assert_close(found, expected.gather(-1, ids[:, None]).squeeze(-1))
    assert entropy is not None
    torch.testing.assert_close(entropy, -(expected.exp() * expected).sum(-1))


def test_rows_that_were_not_scored_are_zeros_in_their_place() -> None:
    scores = insert_missing_rows(Scores(draw(2, 3, 5), None), [False, True, True], [2, 1, 2])
    assert scores.hidden.shape == (5, 5)
    assert not scores.hidden[:2].any()
    assert torch.equal(scores.hidden[2:], draw(2, 3, 5))


def test_bfloat16_logits_are_widened_before_they_are_summed() -> None:
    logits, ids = draw(3, 6, 400, dtype=torch.bfloat16), torch.arange(6)
    scores = Scores(logits.clone(), None)
    assert ScaledLogits(scores, 1.0)(slice(0, 2)).dtype == torch.float32
    found, _ = compute_token_statistics(scores, ids)
    expected = logits.double().log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(scores.hidden, logits)  # computed on a copy
