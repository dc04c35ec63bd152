#!/usr/bin/env bash
# Collect the wheels that run.sh installs, except for torch and what torch brings along.
#
# Run it on Linux with a network, with the Python version of the machine with the accelerator:
#   PYTHON=python3.11 benchmarks/accelerator/collect_wheels.sh
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
python="${PYTHON:-python3}"
venv="$(mktemp -d)/venv"
"$python" -m venv "$venv"
site="$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')"
# pip takes these for installed: CUDA libraries of gigabytes are neither resolved nor downloaded.
for package in torch-2.13.0 triton-3.7.0; do
  mkdir "$site/$package.dist-info"
  printf 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' "${package%-*}" "${package#*-}" \
    >"$site/$package.dist-info/METADATA"
done
rm -rf "$here/wheels"
mkdir "$here/wheels"
"$venv/bin/pip" wheel --quiet --no-deps --wheel-dir "$here/wheels" "$here/../.."
"$venv/bin/pip" install --quiet --dry-run --only-binary=:all: --report "$here/wheels/report.json" \
  "$here"/wheels/lightning_sd-*.whl "trl>=1.16" liger-kernel accelerate
"$venv/bin/python" - "$here/wheels" <<'PYTHON'
import json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
items = [item["metadata"] for item in json.loads((folder / "report.json").read_text())["install"]]
pins = [f"{m['name']}=={m['version']}\n" for m in items if m["name"] != "lightning_sd"]
(folder / "requirements.txt").write_text("".join(pins))
PYTHON
"$venv/bin/pip" download --quiet --no-deps --only-binary=:all: --dest "$here/wheels" \
  --requirement "$here/wheels/requirements.txt"
du -sh "$here/wheels"
