# Upstream's own clients, unmodified, from their registries; sourced by scripts/test. They are kept outside the tree, in
# $XDG_CACHE_HOME/pigeonfs-peers, and made anew where they are missing or broken.
#
# Sets PIGEONFS_TEST_PIGEONHOLE_CP (the program) and PIGEONFS_TEST_PYTHON (a Python that has the package).

peers=${XDG_CACHE_HOME:-$HOME/.cache}/pigeonfs-peers
thin_client=0.0.25

rust_peer() {
    local root=$peers/katzenpost_thin_client-$thin_client
    PIGEONFS_TEST_PIGEONHOLE_CP=$root/bin/pigeonhole-cp
    "$PIGEONFS_TEST_PIGEONHOLE_CP" --help >/dev/null 2>&1 && return
    say "building upstream's pigeonhole-cp"
    rm -rf "$root"
    # In a directory of its own: this tree's toolchain file and configuration are not the peer's.
    (cd "$peers" && cargo install --quiet --locked --debug --root "$root" --target-dir "$peers/build" \
        --version "=$thin_client" --features cli katzenpost_thin_client) || die "pigeonhole-cp could not be built"
    rm -rf "$peers/build"
}

python_peer() {
    local root=$peers/katzenpost_thinclient-$thin_client
    PIGEONFS_TEST_PYTHON=$root/bin/python
    "$PIGEONFS_TEST_PYTHON" -c 'import katzenpost_thinclient' 2>/dev/null && return
    say "installing upstream's Python client"
    rm -rf "$root"
    { python3 -m venv "$root" && "$PIGEONFS_TEST_PYTHON" -m pip install --quiet --disable-pip-version-check \
        "katzenpost_thinclient==$thin_client"; } >&2 || die "katzenpost_thinclient could not be installed"
}

mkdir -p "$peers"
# One at a time: two runs of the tests may share the cache.
exec 9>"$peers/lock"
flock 9
rust_peer
python_peer
exec 9>&-
