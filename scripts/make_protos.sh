#!/bin/bash
# Make the message classes of proto/ anew: src/linkspan/transport/*_pb.py. Needs the dev extra (buf, protoc-gen-py).
set -eu
cd "$(dirname "$0")/.."

bin=$PWD/.venv/bin
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

printf 'version: v2\nplugins:\n  - local: %s/protoc-gen-py\n    out: %s\n' "$bin" "$made" > "$made/buf.gen.yaml"
"$bin/buf" generate proto --template "$made/buf.gen.yaml"
for file in $(find "$made" -name '*_pb.py'); do
  # Our own rules leave generated files alone: what it says to other checkers is not needed.
  sed -E '/^# (ruff|pyright|ty|fmt): /d' "$file" > "src/linkspan/transport/$(basename "$file")"
done
