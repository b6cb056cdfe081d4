# Upstream's own clients, unmodified, from their registries; sourced by scripts/test and scripts/bench. They are kept outside the tree, in
# $XDG_CACHE_HOME/pigeonfs-peers, and made anew where they are missing or broken.
#
# Sets PIGEONFS_TEST_PIGEONHOLE_CP (the program), PIGEONFS_TEST_RUST_PEER (a program on the Rust client) and
# PIGEONFS_TEST_PYTHON (a Python that has the package, and pytest for our own). With peers_profile=release the first two are optimised.

peers=${XDG_CACHE_HOME:-$HOME/.cache}/pigeonfs-peers
thin_client=0.0.25

# pigeonhole-cp, and our program that calls the whole API (tests/peers/rust): one build, so that what both depend on is
# built once. Its lock file pins the version.
rust_peers() {
    local target=$peers/build manifest=$PWD/tests/peers/rust/Cargo.toml profile=${peers_profile:-debug} optimised=()
    [ "$profile" = debug ] || optimised=(--release)
    PIGEONFS_TEST_PIGEONHOLE_CP=$target/$profile/pigeonhole-cp
    PIGEONFS_TEST_RUST_PEER=$target/$profile/whole-api
    [ -x "$PIGEONFS_TEST_RUST_PEER" ] || say "building upstream's pigeonhole-cp and Rust client"
    # Elsewhere: this tree's configuration is not the peers'.
    (cd "$peers" && cargo build --quiet --locked "${optimised[@]}" --manifest-path "$manifest" --target-dir "$target" \
        --package whole-api --package katzenpost_thin_client --bins) || die "upstream's Rust client could not be built"
}

python_peer() {
    local root=$peers/katzenpost_thinclient-$thin_client
    PIGEONFS_TEST_PYTHON=$root/bin/python
    "$PIGEONFS_TEST_PYTHON" -c 'import katzenpost_thinclient, pytest' 2>/dev/null && return
    say "installing upstream's Python client"
    venv_with "$root" "katzenpost_thinclient==$thin_client" pytest
}

mkdir -p "$peers"
# One at a time: two runs of the tests may share the cache.
exec 9>"$peers/lock"
flock 9
rust_peers
python_peer
exec 9>&-
