"""List the processes of a full run in order, with their estimated durations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.step_time.curves import CURVES
from benchmarks.step_time.shapes import SHAPES, Context, Shape

PACKAGE = "benchmarks.step_time"
CONTEXTS: dict[str, Context] = {"sdpo": "sibling", "sdft": "column", "stable": "same"}
"""Same as in :mod:`.peer`, which is not imported because this process must stay small (``run``)."""
START_UP = 8.0
"""Seconds from the start of a process to its first step."""
ROUNDS = {"random32k": 3, "lab": 3, "smollm2": 1, "gemma": 1}
SLOW = 8.0
"""Seconds above which a loss is measured once instead of three times."""


@dataclass(frozen=True)
class Case:
    """One process."""

    part: str
    """``check``, ``step``, ``floor``, ``flops``, ``loss`` or ``curve``."""
    module: str
    arguments: tuple[str, ...]
    seconds: float
    """Estimate for a quiet machine with two cores."""
    rounds: int = 1
    facts: tuple[tuple[str, Any], ...] = ()
    """Columns by which the report groups."""
    huge: bool = True
    """Let torch ask for huge pages, as ``python -m lightning_sd`` does."""

    @property
    def key(self) -> str:
        words = () if self.huge else ("(plain pages)",)
        return " ".join((self.part, self.module, *self.arguments, *words))


def plan(steps: int, *, quick: bool, tiny: bool) -> list[tuple[int, Case]]:
    """Return rounds and cases in running order: all of round 1 before any of round 2.

    Args:
        steps: Measured steps per process, after one warm-up step.
        quick: One process per case, and fewer cases.
        tiny: Replace all shapes with a tiny one, to test the scripts.
    """
    cases = [
        Case("check", "check", (), 60),
        *step_cases("random32k", steps, quick=quick),
        *step_cases("lab", steps, quick=quick),
        *[floor_case(name) for name in ROUNDS],
        Case("flops", "flops", ("--tiny",) if tiny else (), 90),
        *loss_cases(quick=quick),
        *curve_cases(steps, quick=quick),
        *step_cases("smollm2", steps, quick=quick),
        *step_cases("gemma", steps, quick=quick),
        *([] if quick else plain_cases(steps)),
    ]
    if tiny:
        cases = list({case.key: case for case in map(shrunk, cases)}.values())
    last = 1 if quick or tiny else max(case.rounds for case in cases)
    return [(r, case) for r in range(1, last + 1) for case in cases if r <= case.rounds]


def plan_shared(steps: int, *, tiny: bool) -> list[tuple[int, Case]]:
    """Return the cases for a shared machine: JS three times on all shapes, then the rest.

    The floor is measured beside JS. SmolLM2's other losses and our points of the curves are
    measured once.
    """
    js: list[Case] = []
    other = list(curve_cases(steps, quick=True))
    for name in ROUNDS:
        main = [
            ours_case("step", name, {}, "js", "sibling", steps, 3),
            replace(floor_case(name), rounds=3),
            peer_case("step", name, {}, "js", "sdpo", steps, 3),
        ]
        js += main
        for loss in () if name == "gemma" else ("reverse_kl", "top100_js", "sampled"):
            other.append(ours_case("step", name, {}, loss, "sibling", steps, ROUNDS[name]))
            other.append(peer_case("step", name, {}, loss, "sdpo", steps, ROUNDS[name]))
    if tiny:
        js, other = [list(map(shrunk, cases)) for cases in (js[:3], other[-2:])]
    return [(r, c) for cases in (js, other) for r in (1, 2, 3) for c in cases if r <= c.rounds]


def step_cases(name: str, steps: int, *, quick: bool) -> Iterator[Case]:
    """Yield ours and TRL's in turn."""
    main = ROUNDS[name]
    losses = ["js", "reverse_kl", "top100_js", "sampled"]
    if name == "gemma" or (name == "smollm2" and quick):
        losses = ["js"]
    pairs = [("sdpo", loss, main) for loss in losses]
    if name == "random32k":
        pairs += [("sdft", "top100_js", 1), ("stable", "js", 1), ("stable", "reverse_kl", 1)]
        pairs += [("sdpo", "forward_kl", 1)] if not quick else []
    for trainer, loss, rounds in pairs:
        yield ours_case("step", name, {}, loss, CONTEXTS[trainer], steps, rounds)
        yield peer_case("step", name, {}, loss, trainer, steps, rounds)
    # Ours with a different teacher's prompt for every rollout.
    if name == "random32k" or not quick:
        yield ours_case("step", name, {}, "js", "own", steps, 1)
    # Recomputed activations, TRL's default.
    if name in ("random32k", "smollm2") and not quick:
        yield checkpointing(ours_case("step", name, {}, "js", "sibling", steps, 1))
        yield checkpointing(peer_case("step", name, {}, "js", "sdpo", steps, 1))


def plain_cases(steps: int) -> Iterator[Case]:
    """Yield both without huge pages, which help TRL's trainer more than ours."""
    for name, losses in (
        ("random32k", ("js", "reverse_kl", "top100_js", "sampled")),
        ("smollm2", ("js",)),
    ):
        for loss in losses:
            for case in (
                ours_case("step", name, {}, loss, "sibling", steps, 1),
                peer_case("step", name, {}, loss, "sdpo", steps, 1),
            ):
                yield replace(case, huge=False, facts=(*case.facts, ("pages", "plain")))


def checkpointing(case: Case) -> Case:
    """Return the case with gradient checkpointing."""
    return replace(
        case,
        arguments=(*case.arguments, "--checkpointing"),
        facts=(*case.facts, ("checkpointing", True)),
    )


def curve_cases(steps: int, *, quick: bool) -> Iterator[Case]:
    """Yield the points of the curves; TRL's at both ends of each."""
    for curve, points in CURVES.items():
        for number, changes in enumerate(points):
            facts = (("curve", curve),)
            ours = ours_case("curve", "random32k", changes, "js", "column", steps, 1)
            yield replace(ours, facts=(*ours.facts, *facts))
            if number in (0, len(points) - 1) and not quick:
                peer = peer_case("curve", "random32k", changes, "js", "sdft", steps, 1)
                yield replace(peer, facts=(*peer.facts, *facts))


def loss_cases(*, quick: bool) -> Iterator[Case]:
    """Yield losses per divergence (largest vocabulary), per vocabulary, and per tokens."""
    everyone, leanest = ("ours", "dense", "sdpo", "chunked"), ("ours", "dense", "chunked")
    for kind in ("js",) if quick else ("js", "forward_kl", "reverse_kl"):
        for how in everyone if kind == "js" and not quick else leanest:
            yield loss_case(how, kind, 152_000, 576, 1024)
    for how in leanest:
        yield loss_case(how, "js", 262_144, 640, 256)  # the head of Gemma 3 270M
    if not quick:
        for how in everyone:
            yield loss_case(how, "js", 49_152, 576, 2048)
    for tokens in (512, 4096) if quick else (512, 1024, 2048, 4096):
        for how in ("ours", "chunked") if quick else everyone:
            yield loss_case(how, "js", 32_000, 256, tokens)


def ours_case(
    part: str, name: str, changes: dict[str, int], loss: str, kind: Context, steps: int, rounds: int
) -> Case:
    shape = replace(SHAPES[name], **changes)
    words = ("--loss", loss, "--context", kind, "--warm-up", "1", "--steps", str(steps))
    seconds = START_UP + (1 + steps) * guess(shape, loss, kind, peer=False)
    facts = {"shape": name, "loss": loss, "context": kind, "trainer": "ours", **changes}
    return Case(
        part, "ours", (*named(name, changes), *words), seconds, rounds, tuple(facts.items())
    )


def peer_case(
    part: str, name: str, changes: dict[str, int], loss: str, trainer: str, steps: int, rounds: int
) -> Case:
    shape, kind = replace(SHAPES[name], **changes), CONTEXTS[trainer]
    words = ("--trainer", trainer, "--loss", loss, "--warm-up", "1", "--steps", str(steps))
    seconds = START_UP + (1 + steps) * guess(shape, loss, kind, peer=True)
    facts = {"shape": name, "loss": loss, "context": kind, "trainer": trainer, **changes}
    return Case(
        part, "peer", (*named(name, changes), *words), seconds, rounds, tuple(facts.items())
    )


def floor_case(name: str) -> Case:
    repeats = 1 if name == "smollm2" else 2
    seconds = 5 + (1 + repeats) * guess(SHAPES[name], "js", "sibling", peer=False)
    words = ("--shape", name, "--repeats", str(repeats))
    return Case("floor", "floor", words, seconds, ROUNDS[name], (("shape", name),))


def loss_case(how: str, kind: str, vocab: int, width: int, tokens: int) -> Case:
    products = (8 + 4 * (how == "chunked")) * width * vocab * tokens / 70e9
    costs = {"ours": 2.5e-8, "dense": 6e-8, "sdpo": 1.2e-7, "chunked": 1.7e-7}
    once = products + vocab * tokens * (costs[how] if kind == "js" else costs[how] / 2)
    repeats = 1 if once > SLOW else 3
    sizes = {"vocab": vocab, "width": width, "tokens": tokens}
    named_sizes = {**sizes, "repeats": repeats}.items()
    words = [word for name, number in named_sizes for word in (f"--{name}", str(number))]
    seconds = 5 + (1 + repeats) * once
    facts = (("how", how), ("kind", kind), *sizes.items())
    return Case("loss", "loss_only", ("--how", how, "--kind", kind, *words), seconds, 1, facts)


def named(name: str, changes: dict[str, int]) -> tuple[str, ...]:
    changed = [f"{field}={number}" for field, number in changes.items()]
    return ("--shape", name, *(["--set", *changed] if changed else []))


def guess(shape: Shape, loss: str, kind: Context, *, peer: bool) -> float:
    """Estimate the seconds of a step, fitted to the first measurements on two quiet cores."""
    n, d, rows, tokens = shape.body, shape.head, shape.rows, shape.tokens
    groups = rows if peer else shape.prompts
    contexts = rows if peer else shape.prompts * shape.contexts(kind)
    teacher = 2 * n * (contexts * shape.teacher_tokens(kind) + tokens)
    flops = (
        6 * n * (groups * shape.prompt + tokens) + teacher + (8 + 2) * d * tokens + 2 * n * tokens
    )
    costs = {"js": 1.2e-7, "top100_js": 2e-8, "sampled": 5e-9}
    each = 5e-8 + costs.get(loss, 3e-8) if peer else 1.5e-8
    return flops / 70e9 + each * tokens * shape.vocab + 0.012 * shape.completion


def shrunk(case: Case) -> Case:
    """Return the case with the tiny shape and every other size divided by 64."""
    words = [_shrunk_word(word) for word in case.arguments]
    if "--shape" in words:
        words[words.index("--shape") + 1] = "tiny"
    facts = {"shape": "tiny"} if "shape" in dict(case.facts) else {}
    found = {name: facts.get(name, _small(name, value)) for name, value in case.facts}
    return replace(case, arguments=tuple(words), seconds=10.0, facts=tuple(found.items()))


def _shrunk_word(word: str) -> str:
    name, equals, number = word.partition("=")
    if equals:
        return f"{name}={_small(name, int(number))}"
    return str(_small("", int(word))) if word.isdigit() else word


def _small(name: str, value: Any) -> Any:
    """Divide numbers above 16 by 64."""
    return max(2, value // 64) if isinstance(value, int) and value > 16 else value
