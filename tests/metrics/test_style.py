"""Style shares, computed by hand."""

from __future__ import annotations

import pytest

from lightning_sd.metrics.spans import Pieces, split_tokens
from lightning_sd.metrics.style import classify_tokens, sum_style_mass


def pieces(*texts: str) -> Pieces:
    spans, position = [], 0
    for text in texts:
        spans.append((position, position + len(text)))
        position += len(text)
    return Pieces(texts, tuple(spans), (None,) * len(texts))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("Wait", ",", " 7", "+", "5"), "style other math math math"),
        # A word in two tokens is still the word; "Sofa" is not "So".
        (("There", "fore", " x"), "style style other"),
        (("So", "fa", " is", " so"), "other other other style"),
        ((".\n\n", "(2)", "2 = x"), "style math other"),
        # The number of a step is no mathematics.
        (("<step_", "1", ">", "1", "</step_1>"), "other other other math other"),
        ((".", ",", " ", "( "), "other other other other"),
        (("LET'S", " add", " ½"), "style other other"),
    ],
)
def test_classes(texts, expected):
    assert classify_tokens(pieces(*texts)) == tuple(expected.split())


def test_other_words_and_none():
    found = pieces("Now", "\n", "but")
    assert classify_tokens(found, ["but"]) == ("other", "style", "style")
    assert classify_tokens(found, []) == ("other", "style", "other")


def test_masses_by_hand():
    classes = ["style", "math", "other", "style", "math"]
    found = sum_style_mass([-0.5, 0.25, 1.0, 1.5, -0.75], classes)
    assert (found.style.mass, found.style.tokens) == (2.0, 2)
    assert (found.math.mass, found.math.tokens) == (1.0, 2)
    assert (found.task.mass, found.task.tokens) == (2.0, 3)
    assert found.style.mass / found.total.mass == 0.5
    assert found.total.tokens == 5


def test_a_class_each():
    with pytest.raises(ValueError, match="classes"):
        sum_style_mass([1.0], [])


def test_classes_follow_the_words_through_any_tokenizer(tokenizer):
    text = "Wait, so 7+5=2\nTherefore 2."
    found = split_tokens(tokenizer, tokenizer.encode(text, add_special_tokens=False))
    classes = classify_tokens(found)
    style = "".join(t for t, c in zip(found.texts, classes, strict=True) if c == "style")
    assert [w for w in ("Wait", "so", "\n", "Therefore") if w not in style] == []
    assert "7" not in style
