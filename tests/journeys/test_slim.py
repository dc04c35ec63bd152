"""The installation without extras: all of the package is imported, and errors name the extra.

The environment is a folder of links to the installed packages, without those that extras bring.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = {
    *("accelerate", "fastapi", "gguf", "math_verify", "matplotlib", "mlflow", "mlflow_skinny"),
    *("peft", "shtab", "tensorboard", "tensorboardx", "trackio", "uvicorn", "vllm", "wandb"),
}
FIT = "fit --config quickstart"
ROWS = "--data.task=DatasetTask --data.task.path=rows.jsonl --data.critic=null"
COMMANDS = {
    "lora": f"{FIT} --model.model.lora=LoRA",
    "math": f"{FIT} {ROWS} --data.task.judge=math",
    "gguf": f"{FIT} --model.model.name=./weights.gguf",
    "vllm": f"{FIT} --model.sampler=VLLMSampler",
    "serve": "critique serve critiques",
    "completion": "--print_completion shtab-bash",
    "report": f"{FIT} --trainer.logger=TensorBoardLogger --trainer.logger.save_dir=out",
    "trackio": f"{FIT} --trainer.logger=TrackioLogger",
    "wandb": f"{FIT} --trainer.logger=WandbLogger",
    "mlflow": f"{FIT} --trainer.logger=MLFlowLogger",
}
DRIVER = """
import contextlib, importlib, io, json, pkgutil
import lightning_sd

for module in pkgutil.walk_packages(lightning_sd.__path__, "lightning_sd."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for name in lightning_sd.__all__:
    getattr(lightning_sd, name)

from lightning_sd.cli.run import run

shown = {}
for extra, command in json.load(open("commands.json")).items():
    screen = io.StringIO()
    with contextlib.redirect_stderr(screen), contextlib.suppress(SystemExit):
        run(command.split())
    shown[extra] = screen.getvalue()
json.dump(shown, open("shown.json", "w"))
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command prints where no extra is installed."""
    folder = tmp_path_factory.mktemp("slim")
    packages = folder / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if re.split(r"[-.]", entry.name)[0].lower() not in LEFT_OUT:
            (packages / entry.name).symlink_to(entry)
    (folder / "rows.jsonl").write_text('{"question": "1+1", "answer": "2"}\n' * 20)
    (folder / "weights.gguf").write_text("no weights")
    (folder / "commands.json").write_text(json.dumps(COMMANDS))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}",
        "LIGHTNING_SD_CACHE_TOKEN": "0123456789abcdef0123456789abcdef",
    }
    # -S: without the installed packages.
    words = [sys.executable, "-S", "-c", DRIVER]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads((folder / "shown.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("extra", COMMANDS)
def test_an_error_names_the_extra(extra: str, shown: dict[str, str]) -> None:
    (line,) = [line for line in shown[extra].splitlines() if line.startswith("error: ")]
    assert f'pip install "lightning_sd[{extra}]"' in line
    assert "Namespace(" not in line


def test_every_extra_of_the_package_is_tried() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(COMMANDS) == set(project["optional-dependencies"]) - {"bench", "docs", "dev"}
