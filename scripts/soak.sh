#!/usr/bin/env bash
# Looks for losses for as long as it is told (minutes, 30 by default): campaigns of ten minutes against real nodes, and sweeps
# of the simulator, in turn. Ends with 1 at the first thing that does not hold. V6_SEED chooses where the seeds begin.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-30}
seed=${V6_SEED:-$(($(date +%s) % 100000 * 100))}
end=$((SECONDS + minutes * 60))
cargo build --quiet --release -p v6-node
cargo build --quiet --release -p simulations
echo "$minutes minutes from seed $seed"
# One seed is one trace, whatever the build.
cargo build --quiet -p simulations
trace() { "$1" run --nodes 6 --jobs 30 --faults all --seed "$seed" --json | sed 's/.*"trace_hash":"\([0-9a-f]*\)".*/\1/'; }
[ "$(trace target/debug/simulations)" = "$(trace target/release/simulations)" ] || { echo "seed $seed has two traces" >&2; exit 1; }
target/release/simulations mutants
while [ "$SECONDS" -lt "$end" ]; do
  left=$((end - SECONDS))
  nodes=$((5 + seed % 8))
  target/release/campaign --v6 target/release/v6 --nodes "$nodes" --seconds "$((left < 600 ? left : 600))" --seed "$seed"
  [ "$SECONDS" -ge "$end" ] || target/release/simulations sweep --seeds "$((seed * 1000))..$((seed * 1000 + 1000))"
  seed=$((seed + 1))
done
