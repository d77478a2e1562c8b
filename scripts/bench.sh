#!/usr/bin/env bash
# V6 beside its peers: HyperQueue from the Python registry where it can be had, xargs of this machine. Takes half an hour, with
# QUICK=1 some minutes; let the machine do nothing else meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
python=python3
if { [ -x "$tools/bin/pip" ] || python3 -m venv "$tools"; } && "$tools/bin/pip" install --quiet hyperqueue==0.27.0; then
  python=$tools/bin/python
fi
cargo build --quiet --release -p v6-node
cargo build --quiet --release -p simulations
target/release/table --python "$python" ${QUICK:+--quick} "$@"
