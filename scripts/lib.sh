# Shared by the scripts beside it; sourced, never run. It prepares a machine; it knows nothing of tests or demos.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# as_root COMMAND...: run COMMAND as root, by sudo where that is needed and there.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        return 127
    fi
}

# need_packages PACKAGE...: install those Debian packages that are missing; silent when none is.
need_packages() {
    local missing=() package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "could not install ${missing[*]}; as root: apt-get update && apt-get install ${missing[*]}"
    fi
    rm -f "$log"
}

# need_commands PACKAGE:COMMAND...: the packages of the commands that are not there, so that a system without dpkg that
# has them will do.
need_commands() {
    local missing=() pair
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair#*:}" >/dev/null || missing+=("${pair%%:*}")
    done
    [ ${#missing[@]} -eq 0 ] || need_packages "${missing[@]}"
}

# A compiler and a linker that make a program (gcc alone only recommends what it needs for that), and the one library that
# is not built from source.
need_compiler() {
    # Not /dev/null: ld removes what it writes to.
    local program
    program=$(mktemp)
    echo '#include <stdio.h>
int main(void) { return puts("") < 0; }' | cc -x c - -o "$program" 2>/dev/null || need_packages gcc libc6-dev
    # The database is SQLCipher, which takes its ciphers from libcrypto.
    echo '#include <openssl/evp.h>
int main(void) { return EVP_aes_256_cbc() == 0; }' | cc -x c - -o "$program" -lcrypto 2>/dev/null || need_packages libssl-dev
    rm -f "$program"
}

# venv_with DIRECTORY PACKAGE...: a Python environment with these packages of PyPI, made anew.
venv_with() {
    local root=$1
    shift
    rm -rf "$root"
    { python3 -m venv "$root" && "$root/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; } >&2 ||
        die "$* could not be installed"
}

need_rust() {
    # cargo fetches with them.
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ ! -e /etc/debian_version ] || need_packages ca-certificates
    command -v cargo >/dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH
    command -v cargo >/dev/null || die "there is no cargo here: install Rust stable from https://rustup.rs"
}

# A mount needs the device and, for anybody but root, fusermount3, which reads /etc/mtab.
need_fuse() {
    need_commands fuse3:fusermount3 util-linux:mountpoint
    if [ ! -e /etc/mtab ]; then
        say "there is no /etc/mtab here, as in a root that never booted; fusermount3 fails without it: linking it to /proc/self/mounts"
        as_root ln -sfn /proc/self/mounts /etc/mtab || die "as root: ln -s /proc/self/mounts /etc/mtab"
    fi
    [ -e /dev/fuse ] || as_root modprobe fuse 2>/dev/null || true
    [ -e /dev/fuse ] || die "there is no /dev/fuse: load the module 'fuse', or give the container --device /dev/fuse --cap-add SYS_ADMIN"
}
