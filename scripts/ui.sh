#!/usr/bin/env bash
# Builds the pages of the dashboard, if what they are made of has changed. Without npm the binary is built without them.
set -euo pipefail
cd "$(dirname "$0")/../web-gateway/ui"
if ! command -v npm >/dev/null; then
  echo "npm is missing: the binary will have no dashboard (install Node.js 20 or later)" >&2
  exit 0
fi
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  npm ci --no-audit --no-fund --loglevel=error
fi
made=$(find index.html package.json vite.config.ts tsconfig.json scripts src public -newer .built -print -quit 2>/dev/null || echo all)
if [ ! -e .built ] || [ -n "$made" ]; then
  npm run --silent build
  touch .built
fi
