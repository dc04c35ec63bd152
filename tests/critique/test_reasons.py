import time

import pytest

from lightning_sd.critique.base import make_failure
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.service import CritiqueService
from lightning_sd.critique.check import MAX_CRITIQUE_CHARS, check_critique
from lightning_sd.critique.reasons import REASON_NAMES, name_reason
from lightning_sd.text.steps import render_steps
from lightning_sd.types import Critique
from tests.critique.cache.fakes import EchoCritic, request

GOOD = render_steps(["7+5=2"], "2")


@pytest.mark.parametrize(
    ("text", "complete", "name"),
    [
        (GOOD, True, None),
        (GOOD, False, "critique_refused:cut_off"),
        ("", True, "critique_refused:empty"),
        ("<think>" + GOOD, True, "critique_refused:think_tags"),
        ("Well done.", True, "critique_refused:no_answer"),
        (GOOD + "!", True, "critique_refused:broken_form"),
        (GOOD * 10_000, True, "critique_refused:too_long"),
    ],
)
def test_every_refusal_of_the_check_has_a_name(text, complete, name):
    assert name_reason(check_critique(text, request(), complete=complete)) == name
    assert name is None or name in REASON_NAMES


@pytest.mark.parametrize(
    ("critique", "name"),
    [
        (make_failure("timeout"), "critic_failed"),
        (Critique("", "", refused="the moon is full"), "critique_refused:other"),
    ],
)
def test_other_reasons_have_a_name_too(critique, name):
    assert name_reason(critique) == name
    assert name in REASON_NAMES


def test_a_critique_of_five_megabytes_is_cut_before_it_is_used(tmp_path):
    start = time.monotonic()
    assert len(check_critique("<step_1>" * 650_000, request()).text) == MAX_CRITIQUE_CHARS
    assert time.monotonic() - start < 1

    critic = EchoCritic(answer=lambda r: Critique("a" * 5_000_000, "D"))
    [critique] = CritiqueService(critic, CritiqueCache(tmp_path)).ask([request()])
    assert (len(critique.text), critique.refused) == (MAX_CRITIQUE_CHARS, "it is too long")
    [again] = CritiqueService(critic, CritiqueCache(tmp_path)).look_up([request()])
    assert again == critique


def test_a_critique_is_cleaned_before_it_is_cached(tmp_path):
    critic = EchoCritic(answer=lambda r: Critique("\x1b[2J\ud800", "D", refused="\0"))
    service = CritiqueService(critic, CritiqueCache(tmp_path))
    [critique] = service.ask([request()])
    assert (critique.text, critique.refused) == ("\ufffd[2J\ufffd", "\ufffd")
    assert service.look_up([request()]) == [critique]
