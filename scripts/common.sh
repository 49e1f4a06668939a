# Shared by the scripts beside this file: how to become root, and apt without questions. Sourced by bash.

# Prints nothing; true when system packages can be installed without asking anybody anything.
may_install() {
    command -v apt-get >/dev/null && { [[ $EUID -eq 0 ]] || sudo -n true 2>/dev/null; }
}

as_root() {
    if [[ $EUID -eq 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# The list of packages, once a run at most, and at latest after another apt has finished: DPkg::Lock::Timeout below
# covers the package database, not these lists.
apt_update() {
    [[ -z "${APT_IS_FRESH:-}" ]] || return 0
    local attempt output
    for attempt in {1..60}; do
        if output=$(as_root apt-get update -qq 2>&1); then
            break
        elif [[ $output != *"ould not get lock"* ]]; then
            echo "$output" >&2
            echo "apt-get update failed; going on with the package lists that are here." >&2
            break
        fi
        ((attempt > 1)) || echo "Waiting for another apt to finish ..." >&2
        sleep 5
    done
    APT_IS_FRESH=yes
}

# apt_install PACKAGE...   Waits up to ten minutes for another apt or dpkg. Shows apt's own words only when it fails.
apt_install() {
    local output
    apt_update
    echo "Installing $* ..." >&2
    output=$(as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get install -y -q --no-install-recommends \
        -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        "$@" </dev/null 2>&1) || {
        echo "$output" >&2
        return 1
    }
}
