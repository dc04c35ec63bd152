"""Measure lookup time, memory and disk use of a cache with a million critiques.

The same entries are written to three stores: ours, ``diskcache``, and a ``datasets`` table with a
pickle file that maps keys to rows. One process writes a store; another opens it and looks up random
batches of 256 keys. All files are in the operating system's page cache.

    python -m benchmarks.critique_cache.speed --entries 1000000
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 256
ROUNDS = 200
WRITE = 1000
WORDS = 20
"""Nine-digit numbers per text: attempts and critiques have 200 characters each."""


def text(number: int, kind: str) -> str:
    chance = random.Random(f"{kind}{number}")
    return " ".join(str(chance.randrange(10**8, 10**9)) for _ in range(WORDS))


def row(number: int) -> dict[str, Any]:
    return {
        "question": f"Question {number // 8}",
        "attempt": text(number, "attempt"),
        "critique": text(number, "critique"),
        "case": "D",
        "copied": [1, 2],
        "changed": [3],
        "added": [4],
        "tokens": 60,
        "seconds": 0.5,
    }


class Ours:
    """SQLite through ``CritiqueCache``."""

    def __init__(self, folder: Path) -> None:
        from lightning_sd.critique.cache.cache import CritiqueCache

        self.cache = CritiqueCache(folder)
        self.identity = {"critic": "benchmark"}

    def write(self, numbers: range) -> None:
        self.cache.put_many(self.identity, [self._item(number) for number in numbers])

    def finish(self) -> None:
        self.cache.close()

    def keys(self, numbers: list[int]) -> list[Any]:
        from lightning_sd.critique.cache.keys import compute_keys

        return compute_keys(self.identity, [self._item(number)[0] for number in numbers])

    def find(self, keys: list[Any]) -> int:
        found = self.cache.get_many(keys)
        return sum(bool(found[key].critique.text) for key in keys)

    def _item(self, number: int) -> Any:
        from lightning_sd.critique.base import CritiqueRequest
        from lightning_sd.types import Critique, Question, Verdict

        r = row(number)
        question = Question(str(number // 8), r["question"], ())
        steps = (tuple(r[name]) for name in ("copied", "changed", "added"))
        critique = Critique(r["critique"], r["case"], *steps, tokens=r["tokens"], seconds=0.5)
        return CritiqueRequest(question, r["attempt"], Verdict(0.0, False)), critique


class Diskcache:
    """``diskcache.Cache``: SQLite, values pickled."""

    def __init__(self, folder: Path) -> None:
        import diskcache

        self.cache = diskcache.Cache(str(folder), eviction_policy="none", size_limit=2**40)

    def write(self, numbers: range) -> None:
        with self.cache.transact():
            for number in numbers:
                self.cache.set(self.keys([number])[0], row(number))

    def finish(self) -> None:
        self.cache.close()

    def keys(self, numbers: list[int]) -> list[Any]:
        return [digest(number) for number in numbers]

    def find(self, keys: list[Any]) -> int:
        return sum(bool(self.cache[key]["critique"]) for key in keys)


class DatasetsPickle:
    """A ``datasets`` table with a pickle file that maps keys to its rows; written as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, 0
        if (folder / "index.pickle").exists():
            import datasets

            self.table = datasets.load_from_disk(str(folder / "table"))
            self.index = pickle.loads((folder / "index.pickle").read_bytes())

    def write(self, numbers: range) -> None:
        self.rows = numbers.stop

    def finish(self) -> None:
        import datasets

        table = datasets.Dataset.from_generator(
            lambda: map(row, range(self.rows)), cache_dir=str(self.folder / "tmp")
        )
        table.save_to_disk(str(self.folder / "table"))
        index = {digest(number): number for number in range(self.rows)}
        (self.folder / "index.pickle").write_bytes(pickle.dumps(index))
        shutil.rmtree(self.folder / "tmp")

    def keys(self, numbers: list[int]) -> list[Any]:
        return [digest(number) for number in numbers]

    def find(self, keys: list[Any]) -> int:
        found = self.table[[self.index[key] for key in keys]]
        return sum(map(bool, found["critique"]))


def digest(number: int) -> bytes:
    import hashlib

    r = row(number)
    return hashlib.sha256(f"{r['question']}\n{r['attempt']}".encode()).digest()


STORES = {"CritiqueCache": Ours, "diskcache": Diskcache, "datasets + pickle": DatasetsPickle}


def build(name: str, folder: Path, entries: int) -> dict[str, float]:
    store = STORES[name](folder)
    begun = time.perf_counter()
    for start in range(0, entries, WRITE):
        store.write(range(start, min(start + WRITE, entries)))
    store.finish()
    seconds = time.perf_counter() - begun
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"write_seconds": seconds, "disk_mb": size / 2**20}


def read(name: str, folder: Path, entries: int) -> dict[str, float]:
    STORES[name](folder / "warm_up").finish() if name != "datasets + pickle" else _import_datasets()
    before = resident_mb()
    begun = time.perf_counter()
    store = STORES[name](folder)
    store.find(store.keys([0]))
    opened = time.perf_counter() - begun
    chance = random.Random(1)
    times, cpu = [], []
    for _ in range(ROUNDS):
        keys = store.keys([chance.randrange(entries) for _ in range(BATCH)])
        begun, cpu_begun = time.perf_counter(), time.process_time()
        found = store.find(keys)
        times.append(1000 * (time.perf_counter() - begun))
        cpu.append(1000 * (time.process_time() - cpu_begun))
        assert found == BATCH
    return {
        "open_seconds": opened,
        "median_ms": statistics.median(times),
        "median_cpu_ms": statistics.median(cpu),
        "p95_ms": sorted(times)[int(0.95 * ROUNDS)],
        "memory_mb": resident_mb() - before,
        "process_mb": resident_mb(),
    }


def _import_datasets() -> None:
    import datasets  # noqa: F401


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def measure(name: str, folder: Path, entries: int) -> dict[str, float]:
    result: dict[str, float] = {}
    for phase in ("build", "read"):
        words = ["--phase", phase, "--store", name, "--folder", str(folder)]
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, *words, "--entries", str(entries)],
            check=True,
            stdout=subprocess.PIPE,
        )
        result |= json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--store", choices=STORES)
    parser.add_argument("--phase", choices=["build", "read"])
    parser.add_argument("--folder", type=Path)
    a = parser.parse_args()
    if a.phase:
        a.folder.mkdir(parents=True, exist_ok=True)
        act = build if a.phase == "build" else read
        print(json.dumps(act(a.store, a.folder, a.entries)))
        return
    columns = (
        "median_ms",
        "median_cpu_ms",
        "p95_ms",
        "open_seconds",
        "memory_mb",
        "process_mb",
        "disk_mb",
    )
    print("| store |", " | ".join(columns), "|")
    print("|---" * (1 + len(columns)) + "|")
    for name in [a.store] if a.store else STORES:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, Path(folder), a.entries)
        print(f"| {name} |", " | ".join(f"{found[c]:.4g}" for c in columns), "|", flush=True)


if __name__ == "__main__":
    main()
