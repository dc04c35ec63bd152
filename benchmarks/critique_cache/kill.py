"""Kill cache writers at random moments, then verify the cache.

Four processes request critiques through one cache. One of them at a time is killed (SIGKILL) and
restarted. At the end every critique that was acknowledged to a process must be present and right,
and no entry may be corrupt or duplicated.

    python -m benchmarks.critique_cache.kill --kills 50
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.keys import compute_keys
from lightning_sd.critique.cache.maintenance import verify_cache
from lightning_sd.critique.cache.service import CritiqueService
from lightning_sd.types import Critique, Question, Verdict

WRITERS = 4
BATCH = 8
WINDOW = 100
SPEED = 400.0
"""New numbers per second. All writers request numbers from one moving window, so their requests
overlap."""
CLAIM_SECONDS = 1.0


class NumberCritic(Critic):
    """Log each request, wait briefly, and answer by a rule that can be verified."""

    batch_size = 4

    def __init__(self, log: Path) -> None:
        self.log = log

    def identity(self) -> dict[str, str]:
        return {"critic": "number"}

    def critique(self, requests: list[CritiqueRequest]) -> list[Critique]:
        _append(self.log, [int(request.question.id) for request in requests])
        time.sleep(0.004)
        return [expected(int(request.question.id)) for request in requests]


def expected(number: int) -> Critique:
    return Critique(f"critique {number} " * 20, "D", (1,), (2,), (3,), tokens=number, seconds=0.5)


def request(number: int) -> CritiqueRequest:
    question = Question(str(number), f"question {number}", (), answer=str(number))
    return CritiqueRequest(question, f"attempt {number} " * 20, Verdict(0.0, False))


def write(folder: Path, name: str, seed: int, begun: float) -> None:
    """Request critiques of random numbers, and log the numbers once they are acknowledged."""
    critic = NumberCritic(folder / f"{name}.asked")
    service = CritiqueService(critic, CritiqueCache(folder), claim_seconds=CLAIM_SECONDS)
    chance = random.Random(seed)
    while True:
        first = int((time.time() - begun) * SPEED)
        numbers = [first + chance.randrange(WINDOW) for _ in range(BATCH)]
        service.ask([request(number) for number in numbers])
        _append(folder / f"{name}.safe", numbers)


def run(folder: Path, kills: int, seed: int = 0, longest_pause: float = 0.6) -> dict[str, int]:
    """Start the writers, kill them, and verify the cache.

    Returns:
        Counts: kills, critiques, acknowledged critiques, ``lost``, ``wrong`` and ``corrupt`` ones
        (all 0 if the cache keeps its promises), and questions that were requested twice (at most
        those that a killed writer was working on).
    """
    chance = random.Random(seed)
    names = [f"writer{i}" for i in range(WRITERS)]
    begun = time.time()
    running = {name: _start(folder, name, chance.randrange(2**31), begun) for name in names}
    for _ in range(kills):
        time.sleep(chance.uniform(0.0, longest_pause))
        name = chance.choice(names)
        os.kill(running[name].pid or 0, signal.SIGKILL)
        running[name].join()
        running[name] = _start(folder, name, chance.randrange(2**31), begun)
    time.sleep(1.0)
    for process in running.values():
        process.kill()
        process.join()
    return {"kills": kills + WRITERS, **check(folder)}


def check(folder: Path) -> dict[str, int]:
    cache = CritiqueCache(folder)
    safe = {n for path in folder.glob("*.safe") for n in _read(path)}
    asked = Counter(n for path in folder.glob("*.asked") for n in _read(path))
    keys = compute_keys({"critic": "number"}, [request(n) for n in sorted(safe)])
    found = cache.get_many(keys)
    right = [
        found[key].critique == expected(n)
        for n, key in zip(sorted(safe), keys, strict=True)
        if key in found
    ]
    query = cache.database.connection.execute
    distinct = query("SELECT count(DISTINCT question) FROM critiques").fetchone()[0]
    return {
        "critiques": len(cache),
        "safe": len(safe),
        "lost": len(safe) - len(found),
        "wrong": len(right) - sum(right),
        "corrupt": len(verify_cache(folder)),
        "double": len(cache) - distinct,
        "asked_twice": sum(number > 1 for number in asked.values()),
    }


def _start(folder: Path, name: str, seed: int, begun: float) -> multiprocessing.Process:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=write, args=(folder, name, seed, begun), daemon=True)
    process.start()
    return process  # type: ignore[return-value]


def _append(path: Path, numbers: list[int]) -> None:
    """Append in one write call, so that a kill leaves a complete line or none."""
    with open(path, "ab", buffering=0) as stream:
        stream.write((json.dumps(numbers) + "\n").encode())


def _read(path: Path) -> list[int]:
    return [number for line in path.read_text().splitlines() for number in json.loads(line)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), arguments.kills, arguments.seed)
    print(json.dumps(result, indent=1))
    broken = [name for name in ("lost", "wrong", "corrupt", "double") if result[name]]
    raise SystemExit(f"broken: {broken}" if broken else 0)


if __name__ == "__main__":
    main()
