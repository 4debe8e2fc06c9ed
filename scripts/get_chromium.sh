#!/bin/bash
# Install Chromium from the distribution's packages, for the tests with a page in a browser. Does nothing where there is one already.
# Where that cannot be done, it says so and ends well: the tests then say that they were not run.
set -u -o pipefail

for name in chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then exit 0; fi
done
if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "not run: get_chromium: needs apt-get and root, or a chromium on PATH"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } > /dev/null; then
  echo "not run: get_chromium: apt-get could not install chromium"
fi
