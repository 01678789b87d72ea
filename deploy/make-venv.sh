#!/usr/bin/env bash
# Makes a virtualenv, also where Debian's Python comes without the venv module.
set -euo pipefail
venv=$1
python=${PYTHON:-python3}
[ -x "$venv/bin/python" ] && exit 0

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "liteflow needs Python 3.10 or newer as '$python'; name another one with PYTHON=..." >&2
    exit 1
fi
echo "making a virtualenv in $venv"
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    sudo=''
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing python3-venv"
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
fi
"$python" -m venv "$venv"
