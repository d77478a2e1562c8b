#!/usr/bin/env bash
# Makes the dashboard's types from the API's description; with --check it only says whether they are what they should be.
set -euo pipefail
cd "$(dirname "$0")/.."
ui=web-gateway/ui
cargo run --quiet -p v6-web-gateway --example openapi >"$ui/openapi.json"
cd "$ui"
made=$(mktemp)
trap 'rm -f "$made" "$made.ts"' EXIT
echo '// One file, however long: it is made whole from the API by scripts/ui-types.sh, and read by nobody.' >"$made"
npx --no-install openapi-typescript openapi.json --output "$made.ts" >/dev/null
cat "$made.ts" >>"$made"
if [ "${1:-}" != --check ]; then
  cp "$made" src/api/generated.ts
elif ! diff "$made" src/api/generated.ts | head -20 >&2; then
  echo "the API has changed: run bash scripts/ui-types.sh" >&2
  exit 1
fi
