"""The first day of a user: commands in an empty folder, their exit codes, and the lines shown.

Commands that need torch run one after another in a single process, because each start takes
seconds; they see only what the command line gives them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DRIVER = """
import json, os, shlex, sys
from lightning_sd.cli.run import run

results = []
for command in json.load(open("commands.json")):
    status = 0
    with open("screen.txt", "w+b") as screen:
        for stream in (1, 2):
            os.dup2(screen.fileno(), stream)
        try:
            run(shlex.split(command))
        except SystemExit as stopped:
            status = stopped.code or 0
        sys.stdout.flush()
        screen.seek(0)
        results.append([status, screen.read().decode()])
json.dump(results, open("results.json", "w"))
"""
TINY = {
    "trainer": {
        "max_steps": 2,
        "limit_val_batches": 0,
        "callbacks": [
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {
                    **{"dirpath": "ckpt", "save_last": True, "every_n_train_steps": 1},
                    "enable_version_counter": False,
                },
            },
            {"class_path": "SampleTable", "init_args": {"every_n_steps": 1, "rows": 1}},
            {"class_path": "BeforeAfter"},
            {"class_path": "StepMonitor"},
            {"class_path": "TrainingReport", "init_args": {"path": "report.html"}},
        ],
    },
    "model": {"init_args": {"samples": 2, "eval_samples": 2}},
    "data": {
        "init_args": {
            "cache_dir": "critiques",
            "batch_size": 4,
            "task": {"init_args": {"train_size": 64, "val_size": 8, "test_size": 4}},
        }
    },
}
FIT = "fit --config quickstart.yaml --config tiny.yaml"


class Step(NamedTuple):
    """One command of the journey."""

    command: str
    status: int
    shown: str


LIGHT = (
    Step("--version", 0, "lightning_sd "),
    Step("--help", 0, "fit --config quickstart"),
    Step("fit --help", 0, "--help_all"),
    Step("critique --help", 0, "count critiques, cases, refusals"),
    Step("configs", 0, "quickstart"),
    Step("init quickstart", 0, "quickstart.yaml"),
    Step("critique stats critiques", 2, "there is no critique cache"),
    Step("critique stat critiques", 2, "did you mean stats?"),
    Step("fti", 2, "there is no such command; did you mean fit?"),
)
HEAVY = (
    # Errors, before a model is loaded.
    Step(f"{FIT} --model.smaples=3", 2, "model.smaples: unknown option of "),
    Step(f"{FIT} --ckpt_path=last", 2, "ckpt_path=last: no last*.ckpt"),
    # A run, and what it shows.
    Step(FIT, 0, "First batch: 8 of 8 completions had an answer"),
    Step("critique stats critiques", 0, '"critiques": '),
    # It goes on with another learning rate, which is said.
    Step(
        f"{FIT} --ckpt_path=last --trainer.max_steps=3 --model.optimizer.lr=1e-5",
        0,
        "AdamW.lr: 0.001 in the checkpoint, now 1e-05.",
    ),
    # Runs that end by themselves.
    Step(
        f"{FIT} --data.critic=ServerCritic --data.critic.url=http://127.0.0.1:9/v1 "
        "--data.critic.model=m --data.critic.retries=0 --data.cache_dir=none",
        1,
        "The critic failed: see its warning, and check its address and key.",
    ),
    Step(
        f"{FIT} --trainer.callbacks+=RewardGuard --trainer.callbacks.high=0.0 "
        "--trainer.callbacks.window=1 --trainer.callbacks.action=stop",
        1,
        "RewardGuard: over steps 1 to 1, train/reward is",
    ),
    Step("export --ckpt_path=ckpt/last.ckpt --out=hf", 0, "is in hf"),
)


def run_alone(folder: Path, command: str) -> tuple[int, str]:
    """Run one command in a process of its own."""
    words = [sys.executable, "-m", "lightning_sd", *command.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder, in which the light commands are run first."""
    return tmp_path_factory.mktemp("day")


@pytest.fixture(scope="module")
def light(folder: Path) -> dict[str, tuple[int, str]]:
    return {step.command: run_alone(folder, step.command) for step in LIGHT}


@pytest.fixture(scope="module")
def heavy(folder: Path, light: object) -> dict[str, tuple[int, str]]:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    commands = [step.command for step in HEAVY]
    (folder / "commands.json").write_text(json.dumps(commands))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    words = [sys.executable, "-c", DRIVER]
    subprocess.run(words, cwd=folder, env=environment, check=True, timeout=300)
    results = json.loads((folder / "results.json").read_text())
    return dict(zip(commands, map(tuple, results), strict=True))


@pytest.mark.parametrize("step", LIGHT, ids=lambda step: step.command)
def test_light_commands(step: Step, light: dict[str, tuple[int, str]]) -> None:
    status, screen = light[step.command]
    assert status == step.status, screen
    assert step.shown in screen
    assert "Traceback" not in screen


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(HEAVY)))
def test_heavy_commands(number: int, heavy: dict[str, tuple[int, str]]) -> None:
    step = HEAVY[number]
    status, screen = heavy[step.command]
    assert status == step.status, screen
    assert step.shown in screen, screen
    assert "Traceback" not in screen
    if status:
        assert len([line for line in screen.splitlines() if line.startswith("error: ")]) == 1


@pytest.mark.slow
def test_what_a_run_leaves(folder: Path, heavy: dict[str, tuple[int, str]]) -> None:
    _, screen = heavy[FIT]
    for text in ("Held-out questions, 2 optimizer steps", "Rollouts at step 1", "report.html"):
        assert text in screen
    assert "Loading weights" not in screen
    page = (folder / "report.html").read_text()
    assert "<h1>SelfDistillModule" in page
    assert (folder / "hf" / "config.json").exists()
