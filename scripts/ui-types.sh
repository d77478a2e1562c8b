#!/usr/bin/env bash
# Makes the dashboard's types from the API's description; with --check it only says whether they are what they should be.
set -euo pipefail
cd "$(dirname "$0")/.."
ui=web-gateway/ui
cargo run --quiet -p v6-web-gateway --example openapi >"$ui/openapi.json"
cd "$ui"
if [ "${1:-}" = --check ]; then
  npx --no-install openapi-typescript openapi.json --output openapi.check.ts >/dev/null
  if ! diff -q openapi.check.ts src/api/generated.ts >/dev/null; then
    diff openapi.check.ts src/api/generated.ts | head -20 >&2
    rm -f openapi.check.ts
    echo "the API has changed: run bash scripts/ui-types.sh" >&2
    exit 1
  fi
  rm -f openapi.check.ts
else
  npx --no-install openapi-typescript openapi.json --output src/api/generated.ts
fi
