#!/usr/bin/env bash
# Everything that CI runs.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
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
else
  cargo test --workspace
fi
