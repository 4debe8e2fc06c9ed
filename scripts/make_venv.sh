#!/bin/bash
# Make a virtual environment, or say in one sentence what this machine lacks.
# Use: scripts/make_venv.sh FOLDER [PYTHON]
set -eu

folder=$1
asked=${2:-python3}
fits='import sys; sys.exit(sys.version_info < (3, 11))'

python=
for name in "$asked" python3.11 python3.12 python3.13; do
  if command -v "$name" > /dev/null && "$name" -c "$fits" 2> /dev/null; then
    python=$(command -v "$name")
    break
  fi
done

if [ -z "$python" ]; then
  found=$("$asked" --version 2> /dev/null || echo "no '$asked'")
  echo "Linkspan needs Python 3.11 or newer, and this machine has $found: install one, or name it with 'make setup PYTHON=/path/to/python'." >&2
  exit 1
fi
if ! "$python" -c 'import venv, ensurepip' 2> /dev/null; then
  echo "'$python' has no venv module with pip: install it ('apt install python3-venv' on Debian and Ubuntu), then try again." >&2
  exit 1
fi

echo "    $("$python" --version) from $python"
"$python" -m venv "$folder"
