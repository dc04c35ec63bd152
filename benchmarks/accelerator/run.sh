#!/usr/bin/env bash
# Check and measure the package on an accelerator, in at most ten minutes and without a network.
#
#   benchmarks/accelerator/collect_wheels.sh     # before, on a machine with a network
#   benchmarks/accelerator/run.sh [--small] [--out FOLDER]
#
# The machine has Python and torch for its CUDA. All other packages come from wheels/ beside this
# script; without that folder the Python of the machine must have them.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
cd "$here/../.."
python="${PYTHON:-python3}"
if [ -d "$here/wheels" ]; then
  venv="$(mktemp -d)/venv"
  # torch comes from the machine.
  "$python" -m venv --system-site-packages "$venv"
  "$venv/bin/pip" install --quiet --no-index --no-deps "$here"/wheels/*.whl
  python="$venv/bin/python"
fi
export PYTHONPATH="$PWD" HF_HUB_OFFLINE=1 TRL_EXPERIMENTAL_SILENCE=1
exec "$python" -m benchmarks.accelerator.run "$@"
