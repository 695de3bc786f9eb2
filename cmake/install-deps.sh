#!/usr/bin/env bash
# Installs what building, testing or running isobit needs and what is missing here: Debian 12, or Ubuntu 24.04 (same package names,
# untested there). Needs root or sudo only if something is missing.
#   install-deps.sh [--run]    build and run the demo (default)
#   install-deps.sh --test     also what the tests need
set -euo pipefail

packages=(build-essential cmake ninja-build pkg-config
          libzmq3-dev libsqlite3-dev sqlite3 libyaml-dev libjansson-dev libmicrohttpd-dev libssl-dev
          libpcre2-dev libutf8proc-dev libhwloc-dev libdnnl-dev libzstd-dev libzip-dev libxxhash-dev
          gnuplot-nox)
if [ "${1:-}" = --test ]; then
    packages+=(libcriterion-dev clang clang-format clang-tidy jq zstd procps git iproute2 slurm-wlm munge)
    # The tests of pages skip without a browser; Ubuntu's package chromium only starts a download of a snap.
    [ "$(. /etc/os-release; echo "$ID")" != debian ] || packages+=(chromium fonts-dejavu-core)
fi

missing=()
for p in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
# LeakSanitizer and libFuzzer come with clang's runtime, whose package carries the version in its name.
if [ "${1:-}" = --test ] && ! compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*' >/dev/null; then
    . /etc/os-release
    case "$ID-$VERSION_ID" in
    debian-12) missing+=(libclang-rt-14-dev) ;;
    ubuntu-24.04) missing+=(libclang-rt-18-dev) ;;
    esac
fi
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "install-deps: missing packages: ${missing[*]}; install them as root or install sudo" >&2
        exit 4
    }
    sudo=(sudo)
fi
command -v apt-get >/dev/null || {
    echo "install-deps: this script knows apt only; install the equivalents of: ${missing[*]}" >&2
    exit 4
}
echo "Installing ${#missing[@]} packages: ${missing[*]}"
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
