#!/usr/bin/env bash
# Python for 64-bit Arm, emulated, on another Linux machine: python.sh ARGUMENTS. ARM_CPU names qemu's processor.
# On first use it fetches an Arm Python with lcpu's dependencies into ARM_HOME (default: ~/.cache/lcpu-arm), with apt and
# pip: for that it needs Debian 12 and root. Exit status 3: it cannot be set up here.
set -euo pipefail
home=${ARM_HOME:-$HOME/.cache/lcpu-arm}
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

install_all() {
    command -v apt-get >/dev/null && [[ $(id -u) == 0 ]] || return 1
    command -v qemu-aarch64-static >/dev/null || { apt-get update -q && apt-get install -y -q qemu-user-static; } || return 1
    mkdir -p "$home/debs" "$home/root" "$home/site"
    local libraries="libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1
        libncursesw6 libtinfo6 libreadline8 libdb5.3 libcrypt1 libnsl2 libtirpc3"
    local python="python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib"
    dpkg --add-architecture arm64 && apt-get update -q || return 1
    # shellcheck disable=SC2086
    (cd "$home/debs" && apt-get download -q $(printf '%s:arm64 ' $libraries $python) media-types) || return 1
    for package in "$home"/debs/*.deb; do dpkg -x "$package" "$home/root" || return 1; done
    # shellcheck disable=SC2046
    python3 -m pip install -q --no-compile --only-binary=:all: --python-version 3.11 --implementation cp \
        $(printf -- '--platform manylinux_2_%s_aarch64 ' 28 27 26 17) --platform manylinux2014_aarch64 \
        --target "$home/site" $(python3 - "$project/pyproject.toml" <<'PYTHON'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
print(*(need.replace(" ", "") for need in project["dependencies"] + project["optional-dependencies"]["test"]))
PYTHON
    ) || return 1
    touch "$home/ready"
}

[[ -e $home/ready ]] || install_all >&2 || { echo "an Arm Python cannot be set up on this machine" >&2; exit 3; }
mkdir -p "$home/packages" && ln -sfn "$project" "$home/packages/lcpu"
export PYTHONPATH=$home/packages:$home/site PYTHONDONTWRITEBYTECODE=1
export LCPU_CACHE_DIR=${LCPU_CACHE_DIR:-$home/kernels-${ARM_CPU:-max}}
exec qemu-aarch64-static -cpu "${ARM_CPU:-max}" -L "$home/root" "$home/root/usr/bin/python3.11" "$@"
