#!/usr/bin/env bash
# Collect the wheels that run.sh installs, except for torch and what torch brings along.
#
# Run it on Linux with a network, with the Python version of the machine with the accelerator:
#   PYTHON=python3.11 benchmarks/accelerator/collect_wheels.sh
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
python="${PYTHON:-python3}"
rm -rf "$here/wheels"
mkdir "$here/wheels"
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$here/wheels" "$here/../.."
# The dependencies by name first: to download torch's CUDA libraries would take gigabytes.
"$python" -m pip install --quiet --dry-run --ignore-installed --only-binary=:all: --report - \
  "$here"/wheels/lightning_sd-*.whl "trl>=1.16" liger-kernel accelerate |
  "$python" -c '
import json, re, sys
for item in json.load(sys.stdin)["install"]:
    name, version = item["metadata"]["name"], item["metadata"]["version"]
    if not re.match(r"torch$|triton$|nvidia|cuda|lightning.sd$", name):
        print(f"{name}=={version}")
' >"$here/wheels/requirements.txt"
"$python" -m pip download --quiet --no-deps --only-binary=:all: --dest "$here/wheels" \
  --requirement "$here/wheels/requirements.txt"
du -sh "$here/wheels"
