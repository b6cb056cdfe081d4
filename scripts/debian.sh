# Fresh Debian systems to try things in; sourced by scripts/fresh and scripts/try-deb after lib.sh. Needs root.

# debian_name 12|13|NAME: the name of a release.
debian_name() {
    case $1 in
    12) echo bookworm ;;
    13) echo trixie ;;
    [a-z]*) echo "$1" ;;
    *) die "$1 is no Debian release that is known here: 12, 13 or a name" ;;
    esac
}

root='' root_binds=()

# make_root RELEASE: sets `root` to a minimal system that was just made. With PIGEONFS_ROOTS=DIR its packages are kept there
# as DIR/RELEASE.tar, so that the next one is made in seconds.
make_root() {
    [ "$(id -u)" -eq 0 ] || die "only root can make a system with debootstrap: try sudo $0"
    need_commands debootstrap:debootstrap util-linux:unshare
    root=$(mktemp -d "${TMPDIR:-/tmp}/pigeonfs-$1.XXXXXX")
    trap 'remove_root' EXIT
    local tar=${PIGEONFS_ROOTS:+$PIGEONFS_ROOTS/$1.tar}
    if [ -n "$tar" ] && [ -e "$tar" ]; then
        tar -xpf "$tar" -C "$root"
    else
        say "making a minimal Debian $1"
        PATH=$PATH:/usr/sbin:/sbin debootstrap --variant=minbase "$1" "$root" "${PIGEONFS_DEBIAN_MIRROR:-http://deb.debian.org/debian}" \
            >"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2 && die "debootstrap failed"; }
        [ -z "$tar" ] || tar -cpf "$tar" -C "$root" .
    fi
    chmod 755 "$root"
    [ ! -e /etc/resolv.conf ] || cp --dereference /etc/resolv.conf "$root/etc/resolv.conf"
}

remove_root() {
    # Nothing is mounted in it outside the namespaces of in_root, which are gone.
    [ -z "$root" ] || rm -rf --one-file-system "$root" "$root.log"
    root=''
}

# in_root ROOT SCRIPT: runs a script of bash as root of that system, in namespaces of its own: whatever it mounts or leaves
# running is gone when it ends. `root_binds` holds OUTSIDE:INSIDE pairs of directories that it sees.
in_root() {
    PIGEONFS_BINDS=$(printf '%s\n' "${root_binds[@]}") unshare --mount --pid --fork --kill-child --propagation private \
        bash -euc '
            root=$1 script=$2
            mount --bind "$root" "$root"
            mount -t proc proc "$root/proc"
            mount -t sysfs sysfs "$root/sys"
            mount -t tmpfs -o mode=755 tmpfs "$root/dev"
            mkdir -p "$root/dev/pts" "$root/dev/shm"
            for device in null zero full random urandom tty fuse; do
                [ ! -e "/dev/$device" ] || { touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"; }
            done
            ln -s /proc/self/fd "$root/dev/fd"
            ln -s /proc/self/fd/0 "$root/dev/stdin"
            ln -s /proc/self/fd/1 "$root/dev/stdout"
            ln -s /proc/self/fd/2 "$root/dev/stderr"
            mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
            ln -s pts/ptmx "$root/dev/ptmx"
            mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
            mount -t tmpfs -o mode=755 tmpfs "$root/run"
            while IFS=: read -r outside inside; do
                [ -z "$outside" ] || { mkdir -p "$root$inside" && mount --bind "$outside" "$root$inside"; }
            done <<<"$PIGEONFS_BINDS"
            exec chroot "$root" /usr/bin/env -i HOME=/root USER=root TERM="${TERM:-dumb}" LANG=C.UTF-8 \
                PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ${CI:+CI="$CI"} \
                ${CARGO_PROFILE_DEV_DEBUG:+CARGO_PROFILE_DEV_DEBUG="$CARGO_PROFILE_DEV_DEBUG"} bash -euc "$script"
        ' - "$1" "$2"
}
