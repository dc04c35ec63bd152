from __future__ import annotations

import enum
import functools
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_sd._serialize import NotPlainError, build, describe, describe_arguments
from lightning_sd.models import LoadedModel, LoRA, ModelSource, PretrainedModel
from lightning_sd.objectives import Distillation, PolicyGradient, SampledToken
from lightning_sd.rollout import TransformersSampler
from lightning_sd.teachers import EMATeacher, FrozenTeacher, LiveTeacher


@dataclass(frozen=True)
class Several(ModelSource):
    """A component of components."""

    parts: list[Any] = field(default_factory=list)
    named: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        raise NotImplementedError


class Net(nn.Module):
    """Keeps its argument under its own name, as components do; its weights are not described."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width, width)


class Forgets:
    def __init__(self, rate: float = 0.5) -> None:
        self.speed = rate


class Colour(str, enum.Enum):
    RED = "red"


class Outer:
    class Inner:
        pass


COMPONENTS = [
    Distillation(),
    Distillation(kind="js", beta=0.25, top_k=20, element_clip=0.05, reduction="sequence"),
    SampledToken(temperature=1.1),
    PolicyGradient(clip_high=0.28, scale="none"),
    EMATeacher(0.05),
    TransformersSampler(max_new_tokens=8, temperature=0.0, top_p=0.9),
    PretrainedModel("x", lora=LoRA(r=4, target_modules=["q_proj"]), model_kwargs={"a": 1}),
    PretrainedModel("x", lora=None, quantization="nf4"),
    Several([EMATeacher(0.5).rate, LoRA(r=1)], {"here": LoRA(r=2), "there": [LoRA(r=3)]}),
]


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda c: type(c).__name__)
def test_a_component_comes_back_from_a_checkpoint(component: Any) -> None:
    """Through a file that only plain data survive."""
    file = io.BytesIO()
    torch.save(describe(component), file)
    file.seek(0)
    found = build(torch.load(file, weights_only=True))
    assert type(found) is type(component)
    if isinstance(component, EMATeacher):
        assert found.rate == component.rate
    else:
        assert found == component


@pytest.mark.parametrize("kind", [FrozenTeacher, LiveTeacher])
def test_a_component_without_arguments_comes_back(kind: Any) -> None:
    assert type(build(describe(kind()))) is kind


def test_plain_data_stay_as_they_are() -> None:
    value = {"a": [1, 2.5, "x", None, True], "b": {"c": -math.inf}}
    assert describe(value) == value
    assert build(value) == value


def test_numbers_and_words_of_other_types_become_plain_ones() -> None:
    """A sweep's numpy numbers would make a checkpoint that can't be read."""
    numpy = pytest.importorskip("numpy")
    assert type(describe(numpy.float64(0.5))) is float
    assert type(describe(EMATeacher(numpy.float64(0.5)))["init_args"]["rate"]) is float
    assert describe(Colour.RED) == "red"
    assert type(describe(Colour.RED)) is str
    assert describe(True) is True


NOT_PLAIN = [
    Net(),
    nn.Linear(2, 2),
    Several([Net()]),
    torch.zeros(2),
    torch.float32,
    torch.optim.AdamW,
    functools.partial(torch.optim.AdamW, lr=0.1),
    lambda x: x,
    len,
    math,
    {1, 2},
    Path("x"),
    b"x",
    Forgets(),
    Outer.Inner(),
    Net,
]


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda v: type(v).__name__)
def test_what_no_plain_data_describe_is_said_so(value: Any) -> None:
    with pytest.raises(NotPlainError):
        describe(value)


def test_a_class_made_inside_a_function_has_no_address() -> None:
    class Local:
        pass

    with pytest.raises(NotPlainError):
        describe(Local())


def test_a_model_in_memory_is_never_rebuilt_with_random_weights(
    make_llama: Any, tokenizer: Any
) -> None:
    with pytest.raises(NotPlainError):
        describe(make_llama())
    with pytest.raises(NotPlainError):
        describe(LoadedModel(make_llama(), tokenizer))
    with pytest.raises(NotPlainError):
        describe(LoadedModel(Net(), tokenizer))


def test_describable_leaves_out_what_must_be_passed_again() -> None:
    found = describe_arguments(
        {"rate": 0.5, "model": Net(), "teacher": EMATeacher(0.5), "none": None}
    )
    assert found == {"rate": 0.5, "teacher": describe(EMATeacher(0.5)), "none": None}


def test_build_takes_what_is_built_as_it_is() -> None:
    teacher = EMATeacher(0.5)
    assert build(teacher) is teacher
    assert build(None) is None


def test_a_description_out_of_range_is_refused_by_the_component() -> None:
    description = {"class_path": "lightning_sd.teachers.EMATeacher", "init_args": {"rate": 2.0}}
    with pytest.raises(ValueError, match=r"rate=2\.0"):
        build(description)


@pytest.mark.parametrize("any_callable", [False, True])
@pytest.mark.parametrize(
    ("class_path", "init_args"),
    [
        ("pathlib.Path.touch", {}),
        ("subprocess.run", {"args": ["touch", "FILE"]}),
        ("subprocess.Popen", {"args": ["touch", "FILE"]}),
        ("os.system", {"command": "touch FILE"}),
        ("lightning_sd._serialize.importlib.import_module", {"name": "os"}),
        ("builtins.exec", {"source": "x = 1"}),
    ],
)
def test_a_description_from_a_checkpoint_calls_nothing_but_components(
    class_path: str, init_args: dict[str, Any], any_callable: bool, tmp_path: Path
) -> None:
    """Nested: in the arguments of a component, as a checkpoint's hyperparameters hold it."""
    text = str(tmp_path / "made")
    init_args = {
        name: [word.replace("FILE", text) for word in value]
        if isinstance(value, list)
        else value.replace("FILE", text)
        for name, value in init_args.items()
    }
    attack = {"class_path": class_path, "init_args": init_args}
    nested = {"class_path": "lightning_sd.teachers.EMATeacher", "init_args": {"rate": attack}}
    with pytest.raises((ValueError, ModuleNotFoundError), match=r"not a class|No module"):
        build(nested, any_callable=any_callable)
    with pytest.raises((ValueError, ModuleNotFoundError), match=r"not a class|No module"):
        build(attack)
    assert not Path(text).exists()
