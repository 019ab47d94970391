#!/bin/sh
# Python with a pretended GPU: tests/gpu/python.sh SCRIPT|-m MODULE ARGUMENTS. It needs what the tests here need.
root=$(cd "$(dirname "$0")/../.." && pwd)
export PRETENDED_PYTHON="$root/tests/gpu/python.sh"
export PYTHONPATH="$root:$root/tests"
exec "${REAL_PYTHON:-python3}" -m gpu.start_script "$@"
