# Sourced by every script here: goes to the repository's root and makes its environment ready in .venv.
# PYTHON names another interpreter than the one found; the environment is installed anew when pyproject.toml changes.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

_find_python() {
    local name
    for name in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "Telex needs Python 3.11 or newer and found none: install one, or name it: PYTHON=/path/to/python $0" >&2
    return 1
}

_make_environment() {
    local python output
    python=$(_find_python)
    if ! output=$("$python" -m venv .venv 2>&1); then
        rm -rf .venv
        echo "$output" >&2
        echo "'$python -m venv' failed, see above. Where ensurepip is missing (Debian: apt-get install python3-venv)," \
            "install it, or name another Python: PYTHON=/path/to/python $0" >&2
        return 1
    fi
}

_install() {
    local fingerprint output
    fingerprint=$(.venv/bin/python -c \
        'import hashlib, sys; print(hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest(), sys.version)')
    if [ "$fingerprint" = "$(cat .venv/telex-stamp 2>/dev/null)" ]; then
        return
    fi
    echo "Installing Telex and its development dependencies into .venv ..." >&2
    if ! output=$(.venv/bin/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]' 2>&1); then
        echo "$output" >&2
        echo "pip could not install '.[dev]', see above." >&2
        return 1
    fi
    echo "$fingerprint" >.venv/telex-stamp
}

if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    if [ -e .venv ]; then
        echo "$PWD/.venv has no working Python with pip: remove it and try again." >&2
        exit 1
    fi
    _make_environment
fi
_install
export PATH="$PWD/.venv/bin:$PATH" VIRTUAL_ENV="$PWD/.venv"
# pyright asks the network whether it is the newest: the answer is of no use here.
export PYRIGHT_PYTHON_IGNORE_WARNINGS=1
