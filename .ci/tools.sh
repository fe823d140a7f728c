# Tools that are not part of a Rust toolchain, each pinned and kept under the target folder. Sourced after `report.sh`.

conformance=crates/testkit/conformance
venv="$target/ci/venv"

# The Rust tools are built without optimisation: that takes a third of the time, and none of them is slow.
cargo_tool() {
    local name=$1 version=$2
    local root="$target/ci/$name-$version"
    if [ ! -x "$root/bin/$name" ]; then
        echo "    installing $name $version" >&2
        CARGO_TARGET_DIR="$target/ci/tools" quietly "install-$name" \
            cargo install --quiet --locked --profile dev --root "$root" "$name@$version" >&2
    fi
    PATH="$root/bin:$PATH"
}

# A Python with `venv`: found, installed by the system's package manager when we may, or named as missing.
python_with_venv() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

install_python() {
    command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || return 1
    echo "    installing python3-venv with apt-get" >&2
    (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv) \
        >"$target/ci/install-python.log" 2>&1
}

# sdk_clients: the Python environment (which also brings Node) and the Node packages, from the lock files, once per lock.
# Returns 1 with a sentence in `missing` when this machine cannot have them.
sdk_clients() {
    local python lock stamp
    python=$(python_with_venv) || { install_python && python=$(python_with_venv); } || {
        missing='Python 3.11 or newer with the venv module is needed (Debian and Ubuntu: apt-get install python3-venv; Fedora: dnf install python3; macOS: brew install python)'
        return 1
    }
    lock=$(cat "$conformance/python/requirements.txt" "$conformance/node/package-lock.json" | cksum)
    stamp="$venv/installed-from"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$lock" ] || [ ! -d "$conformance/node/node_modules" ]; then
        echo "    installing the SDKs for Python and Node into $venv"
        rm -rf "$venv"
        quietly python-venv "$python" -m venv "$venv"
        quietly pip-install "$venv/bin/python" -m pip install --disable-pip-version-check --require-hashes \
            -r "$conformance/python/requirements.txt"
        quietly npm-ci env PATH="$venv/bin:$PATH" "$venv/bin/npm" --prefix "$conformance/node" ci
        echo "$lock" >"$stamp"
    fi
    PATH="$venv/bin:$PATH"
}

# A Redis server for the tests of the quota store: found, installed by the system's package manager when we may, or named as missing.
redis_server() {
    command -v redis-server >/dev/null && return
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "    installing redis-server with apt-get" >&2
        (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server) \
            >"$target/ci/install-redis.log" 2>&1 || true
    fi
    command -v redis-server >/dev/null && return
    missing='redis-server 7 or newer is needed (Debian and Ubuntu: apt-get install redis-server; Fedora: dnf install redis; macOS: brew install redis)'
    return 1
}
