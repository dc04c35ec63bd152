import multiprocessing
import os
import signal
import threading
import time

import pytest

from lightning_sd.critique.base import make_failure
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.claims import claim_keys
from lightning_sd.critique.cache.keys import compute_key
from lightning_sd.critique.cache.service import CritiqueService
from lightning_sd.types import Critique
from tests.critique.cache.fakes import EchoCritic, echo, request

fork = multiprocessing.get_context("fork")


def service(path, critic, on_refusal="drop", **options):
    return CritiqueService(critic, CritiqueCache(path), on_refusal, **options)


def test_asks_once_and_never_again(tmp_path):
    requests = [request(i) for i in (3, 1, 3, 2, 1)]
    critic = EchoCritic()
    first = service(tmp_path, critic)
    assert first.ask(requests) == [echo(r) for r in requests]
    assert [r.question.id for r in critic.asked] == ["3", "1", "2"]
    counts = first.pop_counters()
    assert (counts["critique_hits"], counts["critique_misses"]) == (0, 3)
    assert (counts["critique_tokens"], counts["critique_seconds"]) == (15, 0.75)
    assert set(first.pop_counters().values()) == {0}

    again = EchoCritic()
    second = service(tmp_path, again)
    assert second.ask(requests) == [echo(r) for r in requests]
    assert again.asked == []
    assert second.pop_counters()["critique_hits"] == 3


def test_nothing_asked_nothing_done(tmp_path):
    assert service(tmp_path, EchoCritic()).ask([]) == []


def test_another_critic_is_asked_again(tmp_path):
    service(tmp_path, EchoCritic("one")).ask([request()])
    other = EchoCritic("two")
    service(tmp_path, other).ask([request()])
    assert len(other.asked) == 1


def refuse(reason="no answer"):
    return lambda r: Critique("rubbish", "D", refused=reason)


def test_refusals_are_kept_with_their_reason_and_not_asked_again(tmp_path):
    critic = EchoCritic(answer=refuse())
    one = service(tmp_path, critic)
    for _ in range(2):
        [critique] = one.ask([request()])
        assert critique.refused == "no answer"
    assert len(critic.asked) == 1
    assert one.pop_counters()["critique_refused"] == 2


def test_reference_takes_the_place_of_a_refused_critique_but_not_in_the_cache(tmp_path):
    one = service(tmp_path, EchoCritic(answer=refuse()), "reference")
    [critique] = one.ask([request(5)])
    assert (critique.text, critique.refused) == ("It is 5.", None)
    counts = one.pop_counters()
    assert (counts["critique_fallback"], counts["critique_refused"]) == (1, 1)
    [critique] = service(tmp_path, EchoCritic()).ask([request(5)])
    assert critique.refused == "no answer"


def test_retry_tells_the_reason_and_asks_once_more(tmp_path):
    critic = EchoCritic(answer=lambda r: echo(r) if r.previous_refusal else refuse()(r))
    assert service(tmp_path, critic, "retry").ask([request()]) == [echo(request())]
    assert [r.previous_refusal for r in critic.asked] == [None, "no answer"]


def test_retry_gives_up_after_the_second_refusal(tmp_path):
    critic = EchoCritic(answer=refuse())
    one = service(tmp_path, critic, "retry")
    for _ in range(2):
        [critique] = one.ask([request()])
        assert critique.refused == "no answer"
    assert len(critic.asked) == 2


def test_a_refusal_of_an_earlier_run_is_retried_when_asked_to(tmp_path):
    service(tmp_path, EchoCritic(answer=refuse())).ask([request()])
    critic = EchoCritic()
    assert service(tmp_path, critic, "retry").ask([request()]) == [echo(request())]
    assert [r.previous_refusal for r in critic.asked] == ["no answer"]


def test_failures_are_told_but_not_cached(tmp_path):
    down = service(tmp_path, EchoCritic(answer=lambda r: make_failure("no connection")))
    [critique] = down.ask([request()])
    assert critique.refused == "failed: no connection"
    assert down.pop_counters()["critique_failed"] == 1
    up = EchoCritic()
    assert service(tmp_path, up).ask([request()]) == [echo(request())]
    assert len(up.asked) == 1


def test_a_critic_that_breaks_off_loses_only_what_it_had_not_written(tmp_path):
    def answer(r):
        if r.question.id == "6":
            raise RuntimeError("out of memory")
        return echo(r)

    critic = EchoCritic(answer=answer, batch_size=2)
    with pytest.raises(RuntimeError, match="out of memory"):
        service(tmp_path, critic).ask([request(i) for i in range(10)])
    assert len(CritiqueCache(tmp_path)) == 6
    again = EchoCritic()
    service(tmp_path, again).ask([request(i) for i in range(10)])  # no claim is left behind
    assert [r.question.id for r in again.asked] == ["6", "7", "8", "9"]


def test_a_critic_must_answer_every_request(tmp_path):
    critic = EchoCritic()
    critic.critique = lambda requests: []
    with pytest.raises(RuntimeError, match="0 critiques for 1"):
        service(tmp_path, critic).ask([request()])


def test_looking_up_never_asks(tmp_path):
    critic = EchoCritic()
    one = service(tmp_path, critic, "reference")
    one.ask([request(1)])
    one.pop_counters()
    known, unknown = one.look_up([request(1), request(2)])
    assert known == echo(request(1))
    assert (unknown.text, unknown.refused) == ("It is 2.", None)
    assert len(critic.asked) == 1
    counts = one.pop_counters()
    assert [counts[f"critique_{n}"] for n in ("hits", "misses", "skipped", "fallback")] == [
        1,
        0,
        1,
        1,
    ]


def test_faithfulness_is_counted(tmp_path):
    maps = [Critique("a", "A", (1, 2, 3)), Critique("d", "D", (1,), (2,)), refuse()(None)]
    one = service(tmp_path, EchoCritic(answer=lambda r: maps[int(r.question.id)]))
    one.ask([request(i) for i in range(3)])
    assert one.pop_counters()["critique_copied"] == (4, 5)
    assert "critique_copied" not in one.pop_counters()


def test_progress_adds_up(tmp_path):
    numbers = []
    service(tmp_path, EchoCritic()).ask([request(1)])
    service(tmp_path, EchoCritic()).ask([request(i) for i in (1, 2, 2, 3)], numbers.append)
    assert sum(numbers) == 3


def _ask(path, out, numbers):
    critic = EchoCritic(seconds=0.02)
    critiques = service(path, critic).ask([request(i) for i in numbers])
    assert critiques == [echo(request(i)) for i in numbers]
    out.put([r.question.id for r in critic.asked])


def test_processes_that_want_the_same_at_once_ask_once(tmp_path):
    CritiqueCache(tmp_path)
    out = fork.Queue()
    orders = [range(20), range(19, -1, -1), range(5, 25)]
    processes = [fork.Process(target=_ask, args=(tmp_path, out, order)) for order in orders]
    for process in processes:
        process.start()
    asked = [i for _ in processes for i in out.get(timeout=60)]
    for process in processes:
        process.join()
    assert sorted(asked, key=int) == [str(i) for i in range(25)]


def test_threads_that_want_the_same_at_once_ask_once(tmp_path):
    critic = EchoCritic(seconds=0.02)
    one = service(tmp_path, critic)
    threads = [threading.Thread(target=one.ask, args=([request(1)],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(critic.asked) == 1


def _claim_and_wait(path, ready):
    with claim_keys(CritiqueCache(path), [compute_key({"critic": "echo"}, request())], seconds=0.5):
        ready.set()
        time.sleep(600)


def test_the_work_of_a_killed_process_is_taken_over(tmp_path):
    CritiqueCache(tmp_path)
    ready = fork.Event()
    process = fork.Process(target=_claim_and_wait, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    critic = EchoCritic()
    assert service(tmp_path, critic).ask([request()]) == [echo(request())]
    assert len(critic.asked) == 1


def test_a_claim_outlives_its_time_while_its_owner_works(tmp_path):
    cache, key = CritiqueCache(tmp_path), compute_key({"critic": "echo"}, request())
    with claim_keys(cache, [key], seconds=0.3) as mine:
        assert mine == [key]
        time.sleep(1.0)
        with claim_keys(cache, [key], seconds=0.3) as others:
            assert others == []
    with claim_keys(cache, [key]) as free:
        assert free == [key]


def test_a_final_critique_cannot_be_claimed(tmp_path):
    cache = CritiqueCache(tmp_path)
    [key] = cache.put_many({"critic": "echo"}, [(request(), Critique("", "D", refused="empty"))])
    with claim_keys(cache, [key]) as mine:
        assert mine == []
    with claim_keys(cache, [key], max_requests=2) as mine:
        assert mine == [key]
