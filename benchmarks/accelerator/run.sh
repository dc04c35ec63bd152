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
export PYTHONPATH="$PWD" HF_HUB_OFFLINE=1 TRL_EXPERIMENTAL_SILENCE=1
if [ -d "$here/wheels" ]; then
  packages="$(mktemp -d)"
  trap 'rm -rf "$packages"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --target "$packages" "$here"/wheels/*.whl
  PYTHONPATH="$PWD:$packages"
fi
"$python" -m benchmarks.accelerator.run "$@"
