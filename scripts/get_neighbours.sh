#!/bin/bash
# Build the programs of tests/neighbours with the tools that are there; a tool that is missing is told, and its tests say "not run".
# Use: scripts/get_neighbours.sh VENV
set -eu -o pipefail

to=$(realpath "$1")/neighbours
from=$PWD/tests/neighbours
mkdir -p "$to/node" "$to/typescript"

if command -v go > /dev/null; then
  echo "    go build (the first time a minute or two)"
  (cd "$from/go" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly go build -o "$to/go-neighbour" .)
else
  echo "not run: go is not installed"
fi

if command -v npm > /dev/null; then
  echo "    npm install"
  cp "$from/node/package.json" "$from/node/neighbour.js" "$to/node/"
  cp "$from/typescript/package.json" "$to/typescript/"
  for folder in node typescript; do
    (cd "$to/$folder" && npm install --no-package-lock --no-audit --no-fund --omit=dev --loglevel=error)
  done
else
  echo "not run: npm is not installed"
fi
