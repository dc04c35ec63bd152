from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightning_sd.lab.sounds import SAMPLING_RATE, add_noise, make_noise, synthesize_digits
from lightning_sd.lab.spoken_digits import LETTERS, WORDS, SpokenDigitsTask


def task(**settings: Any) -> SpokenDigitsTask:
    return SpokenDigitsTask(**{"train_size": 8, "val_size": 4, "test_size": 4, **settings})


def sounds(question: Any) -> tuple[Any, Any]:
    return question.messages[-1]["content"][0]["audio"], question.extra["clean"][0]["audio"]


def test_the_same_id_gives_the_same_question() -> None:
    first, second = task().questions("train")[3], task().questions("train")[3]
    assert (first.id, first.text, first.answer) == (second.id, second.text, second.answer)
    for ours, theirs in zip(sounds(first), sounds(second), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_splits_and_seeds_share_no_sound() -> None:
    found = [
        sounds(question)[1].tobytes()
        for seed in (0, 1)
        for split in ("train", "val", "test")
        for question in task(seed=seed).questions(split)
    ]
    assert len(set(found)) == len(found) == 2 * 16


@pytest.mark.parametrize("kind", ["white", "pink", "hum", "babble"])
@pytest.mark.parametrize("snr", [-10.0, 5.0])
def test_noise_has_the_power_asked_for(kind: Any, snr: float) -> None:
    for question in task(snrs=(snr,), noises=(kind,)).questions("train")[:3]:
        heard, clean = (np.asarray(sound, dtype=np.float64) for sound in sounds(question))
        assert heard.shape == clean.shape == (SAMPLING_RATE,)
        measured = 10 * np.log10(np.mean(clean**2) / np.mean((heard - clean) ** 2))
        assert measured == pytest.approx(snr, abs=0.01)
        assert question.extra["snr"] == snr
        assert question.extra["noise"] == kind


def test_clean_lets_the_student_hear_the_clean_sound() -> None:
    heard, clean = sounds(task(clean=True).questions("train")[0])
    assert heard is clean or np.array_equal(heard, clean)


def test_digits_sound_different_and_voices_too() -> None:
    """The same voice (the same draws) saying ten digits: no two are near one another."""
    said = [synthesize_digits(str(d), np.random.default_rng(3), seconds=0.5) for d in range(10)]
    spectra = [np.abs(np.fft.rfft(sound))[:2000] for sound in said]
    spectra = [spectrum / np.linalg.norm(spectrum) for spectrum in spectra]
    alike = [spectra[a] @ spectra[b] for a in range(10) for b in range(a)]
    assert max(alike) < 0.95
    other = synthesize_digits("4", np.random.default_rng(4), seconds=0.5)
    assert not np.allclose(other, said[4])


def test_noises_differ_in_colour() -> None:
    rng = np.random.default_rng(0)
    low = {}
    for kind in ("white", "pink", "hum"):
        power = np.abs(np.fft.rfft(make_noise(kind, SAMPLING_RATE, rng))) ** 2
        low[kind] = power[:1000].sum() / power.sum()
    assert low["white"] < 0.2 < low["pink"]
    assert low["hum"] > 0.3


def test_a_choice_names_the_answer_once() -> None:
    for question in task(kinds=("choice",), train_size=20).questions("train"):
        options = dict(word.split(":") for word in question.text.split("? ")[1].split())
        assert list(options) == list(LETTERS)
        assert len(set(options.values())) == 4
        said = question.reference.split(".")[0].removeprefix("I hear ").split()
        assert options[question.answer] == "".join(str(WORDS.index(word)) for word in said)


@pytest.mark.parametrize(
    ("kind", "completion", "reward", "correct"),
    [
        ("number", "I hear four seven.<answer>{right}</answer>", 1.0, True),
        ("number", "<answer>{half}</answer>", 0.5, False),
        ("number", "<answer>{right}0</answer>", 2 / 3, False),
        ("number", "<answer>x</answer>", 0.0, False),
        ("number", "four seven", 0.0, False),
        ("choice", "<answer>{right}</answer>", 1.0, True),
        ("choice", "<answer>{wrong}</answer>", -1.0, False),
        ("choice", "", 0.0, False),
    ],
)
def test_rewards(kind: Any, completion: str, reward: float, correct: bool) -> None:
    lab = task(kinds=(kind,))
    question = lab.questions("train")[0]
    answer = question.answer or ""
    half = answer[0] + str((int(answer[1]) + 1) % 10) if kind == "number" else ""
    wrong = "B" if answer == "A" else "A"
    text = completion.format(right=answer, half=half, wrong=wrong)
    verdict = lab.verify(question, text)
    assert verdict.reward == pytest.approx(reward)
    assert verdict.correct is correct


def test_reference_is_right() -> None:
    lab = task()
    assert all(lab.verify(q, q.reference).correct for q in lab.questions("train"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"digits": 0}, "digits=0"),
        ({"seconds": 0.3}, "seconds=0.3"),
        ({"kinds": ("song",)}, "kinds="),
        ({"noises": ()}, "noises="),
        ({"snrs": ()}, "snrs=\\[\\]"),
    ],
)
def test_bad_options_name_themselves(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**settings)
    with pytest.raises(ValueError, match="split='dev'"):
        task().questions("dev")  # type: ignore[arg-type]


def test_questions_are_a_sequence() -> None:
    found = task().questions("train")
    assert len(found) == 8
    assert [q.id for q in found[6:]] == [found[6].id, found[-1].id]
    with pytest.raises(IndexError):
        found[8]


def test_noisy_leaves_the_clean_sound_alone() -> None:
    clean = synthesize_digits("12", np.random.default_rng(0), seconds=1.0)
    copy = clean.copy()
    add_noise(clean, "babble", 0.0, np.random.default_rng(1))
    np.testing.assert_array_equal(clean, copy)
