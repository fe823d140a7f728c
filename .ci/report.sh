# Section headers with timings, and one way to stop. Sourced by the other scripts of this folder.

set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/ci"
target=$(cd "$target" && pwd)
began=$SECONDS
current=

# section NAME: closes the section before it with its time and opens a new one.
section() {
    close_section
    current=$1
    section_began=$SECONDS
    printf '\n==> %s\n' "$current"
}

close_section() {
    [ -z "$current" ] || printf '    %s: %s\n' "$current" "$(spent "$section_began")"
    current=
}

# quietly LOG COMMAND...: keeps the output in a file and shows its end only when the command fails.
quietly() {
    local log="$target/ci/$1.log"
    shift
    "$@" >"$log" 2>&1 || {
        tail -n 60 "$log"
        fail "\`$*\` failed; all of its output is in $log"
    }
}

spent() {
    local seconds=$((SECONDS - $1))
    printf '%d min %02d s' $((seconds / 60)) $((seconds % 60))
}

fail() {
    printf '\nFAILED%s: %s\n' "${current:+ in \"$current\"}" "$1" >&2
    exit 1
}

# The one place a failing command without a message of its own ends in.
trap 'status=$?; [ -z "$current" ] || printf "\nFAILED in \"%s\" (exit status %d)\n" "$current" "$status" >&2; exit "$status"' ERR
