#!/bin/bash
# Install libfuse and strace from the distribution's packages, for the power cuts and the trace of system calls. Does nothing where both are.
# Where that cannot be done, it says so and ends well: the tests then say that they were not run.
set -u -o pipefail

if command -v strace > /dev/null && { command -v fusermount3 || command -v fusermount; } > /dev/null; then exit 0; fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "not run: get_power_tools: needs apt-get and root, or strace and fusermount3 on PATH"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends fuse3 strace; } > /dev/null; then
  echo "not run: get_power_tools: apt-get could not install fuse3 and strace"
fi
