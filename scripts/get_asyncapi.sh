#!/bin/bash
# Put AsyncAPI's own parser into .make/asyncapi, for the tests of exported documents. Does nothing where it is there already.
# Without npm, or without a registry, it says so and ends well: the tests then say that they were not run.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
place=.make/asyncapi
wanted="@asyncapi/parser@3.6.3 @asyncapi/protobuf-schema-parser@3.9.0"

if [ "$(cat "$place/installed" 2> /dev/null)" = "$wanted" ]; then exit 0; fi
if ! command -v npm > /dev/null; then echo "not run: get_asyncapi: npm is not installed"; exit 0; fi
mkdir -p "$place"
# shellcheck disable=SC2086 # two words
if npm install --prefix "$place" --no-audit --no-fund --no-save --silent --ignore-scripts $wanted; then
  printf '%s' "$wanted" > "$place/installed"
else
  echo "not run: get_asyncapi: npm could not install $wanted"
fi
