#!/bin/bash
# Install with the tested versions, one line a package, pip's full log only when it fails.
# Use: scripts/pip_install.sh PYTHON PIP_ARGUMENT...
set -eu -o pipefail

python=$1
shift
log=$("$python" -c 'import tempfile; print(tempfile.mkstemp(prefix="linkspan-pip-", suffix=".log")[1])')

# The versions hold for the build back end as well (older and newer pip read one name each).
export PIP_CONSTRAINT=$PWD/constraints.txt PIP_BUILD_CONSTRAINT=$PWD/constraints.txt

echo "    pip install -c constraints.txt $*"
if ! "$python" -m pip install --disable-pip-version-check --no-input --progress-bar off -c constraints.txt "$@" 2>&1 |
  tee "$log" | sed -u -n 's/^Collecting \([^ ]*\).*/    \1/p; s/^\(Successfully installed\) .*/    \1/p'; then
  echo "pip could not install $*. The end of its log ($log):" >&2
  tail -n 30 "$log" >&2
  exit 1
fi
rm -f "$log"
