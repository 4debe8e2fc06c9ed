#!/bin/bash
# Put grpcurl into .make/bin, for the tests that call our gRPC port with it. Without Go it says so and ends well: they say "not run".
set -eu
cd "$(dirname "$0")/.."

version=v1.9.3
bin=$PWD/.make/bin
made=$bin/grpcurl-$version

if [ -x "$made" ]; then exit 0; fi
if ! command -v go > /dev/null; then
  echo "not run: grpcurl: this machine has no Go to build it with"
  exit 0
fi
mkdir -p "$bin"
# A folder of its own, so that two checkouts that build at once never share a half-written file.
build=$(mktemp -d "$bin/build.XXXXXX")
trap 'rm -rf "$build"' EXIT
if ! GOBIN=$build GOFLAGS=-mod=mod go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$version" > "$build/log" 2>&1; then
  echo "not run: grpcurl: building it failed: $(tail -n 1 "$build/log")"
  exit 0
fi
mv "$build/grpcurl" "$made"
ln -sfn "$(basename "$made")" "$bin/grpcurl"
