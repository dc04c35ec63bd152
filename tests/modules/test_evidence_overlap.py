"""What overlaps, in which order, and what is left when something goes wrong."""

import threading

import pytest

from lightning_sd.critique.critics.server import ServerCritic
from lightning_sd.data.module import CritiqueDataModule
from lightning_sd.modules.evidence_overlap import gather_while_sampling
from lightning_sd.types import Rollout, link_siblings
from tests.critique.cache.fakes import EchoCritic, NumberTask, number_question
from tests.critique.critics.fault_server import serving

WAIT = 30
"""Seconds after which a test that hangs fails."""
CRITIQUE = frozenset({"critique"})


def questions(number):
    return [number_question(i) for i in range(number)]


def sample(batch, samples=2):
    return [
        Rollout(question, (int(question.id), i), f"{question.id}.{i}", group)
        for group, question in enumerate(batch)
        for i in range(samples)
    ]


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("evidence")]


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("number", [0, 1, 5, 7, 8])
def test_gives_what_one_part_gives(tmp_path, number, parts):
    """Order, groups, siblings and evidence, by the real data module with its cache."""

    def gather(folder, parts):
        module = CritiqueDataModule(NumberTask(), EchoCritic(), str(tmp_path / folder))
        module.setup("fit")
        found = gather_while_sampling(
            sample, lambda rollouts: module.evidence(rollouts, CRITIQUE), questions(number), parts
        )
        return link_siblings(found), module.counters(), len(module.service.cache)

    (found, counts, cached), (expected, expected_counts, _) = gather("a", parts), gather("b", 1)
    assert found == expected
    assert [r.siblings for r in found] == [r.siblings for r in expected]
    assert [r.group for r in found] == [i for i in range(number) for _ in range(2)]
    assert cached == 2 * number
    assert all(r.critique.text == f"[{r.text}]" for r in found)
    assert counts["critique_misses"] == expected_counts["critique_misses"]


def test_the_next_part_is_sampled_while_evidence_is_gathered():
    """Each waits for the other: run one after the other, this would fail."""
    sampling = [threading.Event() for _ in range(4)]
    judging = [threading.Event() for _ in range(4)]
    log = []

    def slow_sample(batch):
        part = int(batch[0].id) // 2
        sampling[part].set()
        if part:
            assert judging[part - 1].wait(WAIT)
        return sample(batch, 1)

    def slow_evidence(rollouts):
        part = rollouts[0].group // 2
        judging[part].set()
        if part < 3:
            assert sampling[part + 1].wait(WAIT)
        log.append((part, threading.get_ident()))
        return rollouts

    found = gather_while_sampling(slow_sample, slow_evidence, questions(8), 4)
    assert [r.question.id for r in found] == [str(i) for i in range(8)]
    assert [part for part, _ in log] == [0, 1, 2, 3]
    assert len({thread for _, thread in log}) == 1
    assert threading.get_ident() not in {thread for _, thread in log}
    assert threads() == []


def test_at_most_one_part_waits_for_the_critic():
    """One is at the critic, one waits, one was just sampled: no fourth before the first ends."""
    sampled, third, fourth = [], threading.Event(), threading.Event()

    def counting_sample(batch):
        sampled.append(batch[0].id)
        if len(sampled) == 3:
            third.set()
        if len(sampled) == 4:
            fourth.set()
        return sample(batch)

    def slow_evidence(rollouts):
        if rollouts[0].group == 0:
            assert third.wait(WAIT)
            assert not fourth.wait(0.2)
        return rollouts

    assert len(gather_while_sampling(counting_sample, slow_evidence, questions(6), 6)) == 12


def test_one_part_uses_no_thread():
    def evidence(rollouts):
        assert threading.current_thread() is threading.main_thread()
        return rollouts

    assert len(gather_while_sampling(sample, evidence, questions(3), 1)) == 6
    assert len(gather_while_sampling(sample, evidence, questions(1), 5)) == 2


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_an_error_of_the_evidence_stops_everything(bad):
    judged, sampled = [], []

    def noting_sample(batch):
        sampled.append(int(batch[0].id))
        return sample(batch)

    def evidence(rollouts):
        judged.append(rollouts[0].group)
        if rollouts[0].group == bad:
            raise ConnectionError("the critic is gone")
        return rollouts

    with pytest.raises(ConnectionError, match="the critic is gone"):
        gather_while_sampling(noting_sample, evidence, questions(4), 4)
    assert judged == list(range(bad + 1))  # nothing after the one that failed
    assert sampled == list(range(len(sampled)))
    assert threads() == []


def test_an_early_error_is_seen_before_the_last_part():
    """Sampling does not run to the end for evidence that failed at the start."""
    failed, sampled = threading.Event(), []

    def slow_sample(batch):
        sampled.append(batch[0].id)
        if len(sampled) > 1:
            assert failed.wait(WAIT)
        return sample(batch)

    def evidence(rollouts):
        try:
            raise ConnectionError("gone")
        finally:
            failed.set()

    with pytest.raises(ConnectionError):
        gather_while_sampling(slow_sample, evidence, questions(50), 50)
    assert len(sampled) <= 3


def test_an_error_of_the_sampler_stops_everything_and_keeps_what_the_critic_wrote():
    judging, sampled, written = threading.Event(), [], []

    def failing_sample(batch):
        sampled.append(batch[0].id)
        if len(sampled) == 3:
            assert judging.wait(WAIT)
            raise MemoryError("out of memory")
        return sample(batch)

    def slow_evidence(rollouts):
        judging.set()
        written.append(rollouts[0].group)
        return rollouts

    with pytest.raises(MemoryError):
        gather_while_sampling(failing_sample, slow_evidence, questions(6), 6)
    assert sampled == ["0", "1", "2"]
    assert written == list(range(len(written)))
    assert threads() == []


def test_a_critic_on_a_server_answers_while_the_next_part_is_sampled(tmp_path):
    """The real thing: client threads and cache connections below the evidence thread."""
    answered, waited = threading.Event(), []

    def behave(prompt, attempt):
        answered.set()

    def waiting_sample(batch):
        if batch[0].id != "0":
            waited.append(answered.wait(WAIT))
        return sample(batch)

    with serving(behave) as server:
        critic = ServerCritic("m", server.url, concurrency=3)
        module = CritiqueDataModule(NumberTask(), critic, str(tmp_path))
        module.setup("fit")
        found = gather_while_sampling(
            waiting_sample, lambda rollouts: module.evidence(rollouts, CRITIQUE), questions(6), 3
        )
        # From the cache, by this thread's connection.
        assert module.evidence(found, CRITIQUE) == found
        assert len(server.bodies) == 12
    assert waited == [True, True]
    assert all(r.critique.refused is None for r in found)


@pytest.mark.parametrize("parts", [0, -1])
def test_parts_must_be_positive(parts):
    with pytest.raises(ValueError, match=f"parts={parts}"):
        gather_while_sampling(sample, list, questions(2), parts)
