#!/bin/sh
# check_setup.sh PYTHON: names what the build needs and this machine lacks, with the Debian package that brings it.
python=${1:-python3}
missing=""

need() { # need WHAT PACKAGE
    echo "missing: $1 (Debian, Ubuntu: apt-get install $2)" >&2
    missing="$missing $2"
}

if ! command -v "$python" >/dev/null; then
    need "Python 3.10 or newer, as '$python'" "python3 python3-venv python3-dev"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    need "Python 3.10 or newer; '$python' is $("$python" -V 2>&1)" "python3 python3-venv python3-dev"
else
    "$python" -c 'import ensurepip, venv' 2>/dev/null || need "Python's venv module" "python3-venv"
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' ||
        need "Python's headers" "python3-dev"
fi

compiler=${CXX:-c++}
shuffle='typedef int V __attribute__((vector_size(16))); V f(V v) { return __builtin_shufflevector(v, v, 1, 0, 3, 2); }'
if ! echo 'int main() {}' | "$compiler" -x c++ -std=c++17 -o /dev/null - 2>/dev/null; then
    need "a C++17 compiler, as '$compiler'" "g++"
elif ! echo "$shuffle" | "$compiler" -x c++ -std=c++17 -c -o /dev/null - 2>/dev/null; then
    need "gcc 12 or newer, or clang; '$compiler' is $("$compiler" --version | head -n 1)" "clang"
fi

if [ -n "$missing" ]; then
    echo "All at once: apt-get install$missing" >&2
    exit 1
fi
