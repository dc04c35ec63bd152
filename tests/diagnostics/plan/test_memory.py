"""Memory and network of a plan, against numbers that were computed by hand.

A model of 1000 bytes, 800 of them trained, with a head of 50 values of 4 bytes. Measurements are
compared with plans in ``benchmarks/tests/test_memory.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lightning_sd.diagnostics.plan.hardware import CARDS
from lightning_sd.diagnostics.plan.memory import Layout, count_memory
from lightning_sd.diagnostics.plan.seconds import estimate_seconds
from lightning_sd.diagnostics.plan.size import ModelSize
from lightning_sd.diagnostics.plan.work import Workload, count_flops

SIZE = ModelSize(
    **{"weights": 1000, "trained": 800, "body": 100.0, "head": 50, "trained_body": 100.0},
    **{"trains_head": True, "held": 200, "layers": 4, "hidden": 8, "vocab": 10, "attention": 16},
    **{"cache": 32.0, "saved": 64.0, "layer": 16.0, "item": 4, "largest": 120},
)
WORK = Workload(questions=1, samples=2, prompt=3, teacher_prompt=5, answer=2)
CACHE, SAMPLER = 2 * 5 * 32 * 1.25, 3 * 2 * 10 * 4
SCORING = 2 * 7 * 16  # a layer's values of the teacher's 14 tokens
HIDDEN, HEAD = 4 * 8 * 4, 50 * 4  # of 4 answer tokens, and the head
LOGITS = 4 * 4 * 10 * 4  # 4 copies of 4 tokens' logits
LOSS = LOGITS + HEAD + 2 * HIDDEN


def count(work: Workload = WORK, size: ModelSize = SIZE, **layout: Any) -> tuple[float, ...]:
    memory = count_memory(size, work, Layout(**layout))
    return memory.rollout, memory.teacher, memory.student, memory.optimizer


def test_one_device() -> None:
    always = 1000 + 2 * 800 + 800
    assert count() == (
        always + 800 + CACHE + SAMPLER,
        always + 800 + SCORING + HIDDEN,
        always + 800 + 2 * 5 * 64 + LOSS + HIDDEN,
        always + 800 + 800,
    )


def test_a_cpu_packs_weights_and_updates_one_parameter_at_a_time() -> None:
    rollout, teacher, student, optimizer = count()
    packed = (100 + 50) * 4
    assert count(cpu=True) == (rollout + packed, teacher, student, optimizer - 800 + 2 * 120)


def test_ddp_holds_buckets() -> None:
    assert count(devices=8) == tuple(phase + 800 for phase in count())


def test_sharded_teachers_hold_the_students_shards_and_a_copy_of_the_head() -> None:
    shards = (1000 + 2 * 800 + 800) / 2
    assert count(devices=2, strategy="fsdp2") == (
        shards + 1000 + 400 + CACHE + SAMPLER,
        shards + 1000 + 400 + SCORING + HIDDEN + HEAD + 400,
        shards + 1000 + 400 + 2 * 5 * 64 + LOSS + HIDDEN + HEAD,
        shards + 400 + 400,
    )
    layers = 200 + 2 * (1000 - 200) / 4
    assert count(devices=2, strategy="fsdp2 layers")[1] == (
        shards + layers + 400 + SCORING + HIDDEN + HEAD + 400
    )


def test_a_live_teacher_holds_only_a_copy_of_the_head() -> None:
    two = {"devices": 2, "strategy": "fsdp2"}
    difference = count(**two)[1] - count(copies=0, **two)[1]
    assert difference == 800 / 2 + 400  # the teacher's copy, and the student's shards


def test_a_teacher_wider_than_the_weights_is_swapped_in_as_a_copy() -> None:
    half = replace(SIZE, item=2)
    always = 1000 + 2 * 800 + 2 * 800  # the copy is in float32
    assert count(size=half)[1] == always + 800 + SCORING + HIDDEN / 2 + 800


@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp2 layers"])
def test_replicas_have_the_memory_of_one_groups_devices(strategy: Any) -> None:
    one = count(devices=8, strategy=strategy)
    assert count(devices=16, strategy=strategy, replicas=2) == one
    assert count(devices=16, strategy=strategy) < one


def test_gathered_gradients_of_earlier_micro_batches_are_whole() -> None:
    two = {"devices": 2, "strategy": "fsdp2"}
    one, several = count(**two), count(accumulate=4, **two)
    assert [b - a for a, b in zip(one, several, strict=True)] == [400, 400, 400, 0]
    layers = {"devices": 2, "strategy": "fsdp2 layers"}
    assert count(accumulate=4, **layers) == count(**layers)


def test_a_token_budget_holds_the_activations_of_one_part() -> None:
    always, long = 1000 + 2 * 800 + 800, replace(WORK, prompt=60, teacher_prompt=61)
    whole, split = count(long), count(replace(long, max_tokens=62))
    # Two rows together: all activations while the loss is computed. Alone: none.
    assert whole[2] == always + 800 + 2 * 62 * 64 + LOSS + HIDDEN
    assert split[2] == always + max(800 + LOSS + HIDDEN, 62 * 64 + HEAD + 2 * HIDDEN)
    assert split[1] == always + 800 + 63 * 16 + HIDDEN  # the teacher scores one row at a time
    assert split[::3] == whole[::3]
    assert count(replace(long, max_tokens=2 * 62))[2] == whole[2]


def test_a_token_budget_costs_a_forward_pass() -> None:
    whole, split = (count_flops(SIZE, replace(WORK, max_tokens=limit)) for limit in (None, 5))
    forward = 2 * 100 * 10 + 4 * 16 * 2 * 5**2
    assert split.student - whole.student == forward
    assert (split.rollout, split.teacher) == (whole.rollout, whole.teacher)


def estimate_network(**layout: Any) -> float:
    flops = count_flops(SIZE, WORK)
    return estimate_seconds(SIZE, WORK, flops, Layout(**layout), CARDS["h100"]).network


def test_bytes_over_the_network() -> None:
    link, node_link = 450e9, 50e9
    assert estimate_network(devices=8) == pytest.approx(2 * 800 * 7 / 8 / link)
    # Gathered for the rollout, the teacher and the student; reduced once.
    sharded = {"strategy": "fsdp2"}
    one_node = (3 * 1000 + 800) * 7 / 8 / link
    assert estimate_network(devices=8, **sharded) == pytest.approx(one_node)
    two_steps = (2 * 3 * 1000 + 800) * 7 / 8 / link
    assert estimate_network(devices=8, accumulate=2, **sharded) == pytest.approx(two_steps)
    two_nodes = (3 * 1000 + 800) * 15 / 16 / node_link
    assert estimate_network(devices=16, **sharded) == pytest.approx(two_nodes)
    # Replicas gather within their node, and send each shard's gradient between nodes.
    hybrid = one_node + 2 * (800 / 8) * 1 / 2 / node_link
    assert estimate_network(devices=16, replicas=2, **sharded) == pytest.approx(hybrid)
    # Layers are gathered for 2 tokens, the teacher, and the student's two passes.
    layers = 2 * (5 * 800 + 800) * 7 / 8 / link
    found = estimate_network(devices=8, accumulate=2, strategy="fsdp2 layers")
    assert found == pytest.approx(layers)
