import threading
import time
from contextlib import suppress

import pytest

from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.service import CritiqueService
from tests.critique.cache.fakes import EchoCritic, echo, request


def hang_in_python():
    while True:
        with suppress(Exception):
            time.sleep(0.01)


class HangingCritic(EchoCritic):
    """Answers requests 0 and 1, then hangs."""

    def __init__(self, hang):
        super().__init__(batch_size=1)
        self.hang = hang

    def critique(self, requests):
        if requests[0].question.id in ("0", "1"):
            return super().critique(requests)
        return self.hang() or super().critique(requests)


def service(path, critic, deadline=0.3):
    return CritiqueService(critic, CritiqueCache(path), deadline=deadline)


def critic_threads():
    return [t for t in threading.enumerate() if t.name == "critic"]


def test_a_critic_that_hangs_is_ended_and_the_step_goes_on(tmp_path):
    one = service(tmp_path, HangingCritic(hang_in_python))
    critiques = one.ask([request(i) for i in range(4)])
    assert critiques[:2] == [echo(request(0)), echo(request(1))]
    assert [c.refused for c in critiques[2:]] == ["failed: timeout: no critique within 0.3 s"] * 2
    counts = one.pop_counters()
    assert (counts["critique_failed"], counts["critique_timed_out"]) == (2, 2)
    assert len(one.cache) == 2
    assert critic_threads() == []


def test_the_critic_is_asked_again_in_the_next_step(tmp_path):
    hangs = iter([hang_in_python, lambda: None])
    one = service(tmp_path, HangingCritic(lambda: next(hangs)()))
    assert one.ask([request(2)])[0].refused is not None
    assert one.ask([request(2)]) == [echo(request(2))]


def test_a_critic_that_blocks_outside_python_fails_at_once_until_it_returns(tmp_path):
    release = threading.Event()
    one = service(tmp_path, HangingCritic(lambda: release.wait() and None))
    assert "no critique within" in one.ask([request(2)])[0].refused
    start = time.monotonic()
    assert "still hangs" in one.ask([request(2)])[0].refused
    assert time.monotonic() - start < 0.3
    release.set()
    for thread in critic_threads():
        thread.join(10)
    assert one.ask([request(0)]) == [echo(request(0))]


def test_no_deadline_runs_the_critic_in_the_callers_thread(tmp_path):
    names = []
    critic = EchoCritic(answer=lambda r: names.append(threading.current_thread().name) or echo(r))
    service(tmp_path, critic, None).ask([request(0)])
    service(tmp_path, critic).ask([request(1)])
    assert names == [threading.current_thread().name, "critic"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_what_the_critic_raises_reaches_the_caller(tmp_path, error):
    def fail():
        raise error

    one = service(tmp_path, HangingCritic(fail), 30)
    with pytest.raises(type(error)):
        one.ask([request(i) for i in range(4)])
    assert len(one.cache) == 2


def test_a_slow_critic_is_not_given_up_while_it_writes(tmp_path):
    one = service(tmp_path, EchoCritic(batch_size=1, seconds=0.2), 1.0)
    assert all(c.refused is None for c in one.ask([request(i) for i in range(8)]))
