# Sourced by scripts/quickstart and scripts/test, in the root of the repository.

# install_into_venv SPEC: make .venv with Python 3.11 or newer if it is not there, and install SPEC unless this very
# pyproject.toml has been installed with it already.
install_into_venv() {
    local spec=$1 python stamp
    if [ ! -x .venv/bin/python ]; then
        for python in "${PYTHON:-python3.11}" python3 python; do
            if command -v "$python" >/dev/null &&
                "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
                "$python" -m venv .venv
                break
            fi
        done
        [ -x .venv/bin/python ] || { echo "Python 3.11 or newer is needed: install it, or set PYTHON=/path/to/python." >&2; exit 1; }
    fi
    stamp=".venv/installed-$(printf '%s' "$spec" | cksum | cut -d' ' -f1)"
    if [ ! -f "$stamp" ] || ! cmp -s pyproject.toml "$stamp"; then
        echo "Installing (a few minutes the first time: PyTorch is large) ..." >&2
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable "$spec"
        cp pyproject.toml "$stamp"
    fi
}
