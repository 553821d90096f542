# What scripts/quickstart and scripts/test share: finding and installing what a build needs.
# Sourced by both, from the root of the project.

say() { printf '%s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Of what Ninja writes into a pipe, how far it is: a line for every fifth of the work.
show_progress() {
  local line last=-1
  while IFS= read -r line; do
    [[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]] || continue
    local done=${BASH_REMATCH[1]} all=${BASH_REMATCH[2]}
    ((5 * done / all == last)) && continue
    last=$((5 * done / all))
    say "  $done of $all"
  done
}

# Installs Debian packages, with sudo where that is needed.
install_packages() {
  command -v apt-get >/dev/null || die "please install: $* (no apt-get here)"
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "please install: $* (not root, and there is no sudo)"
    as_root=(sudo)
  fi
  # One suite may install while another does.
  as_root=(flock -o -w 600 "${BASH_SOURCE[0]}" "${as_root[@]}")
  say "installing: $*"
  "${as_root[@]}" apt-get update -qq >/dev/null || true
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq "$@" >/dev/null ||
    die "apt-get could not install: $*"
}

# install_missing COMMAND=PACKAGE ...: installs the packages whose command is not there.
install_missing() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

# A compiler that knows C++20, named in CXX (and CC).
require_compiler() {
  install_missing g++=g++ cmake=cmake ninja=ninja-build python3=python3
  local test='#include <bit>
static_assert(std::bit_width(4u) == 3); thread_local constinit int x = 0; int main() { return x; }'
  printf '%s' "$test" | "${CXX:-g++}" -std=c++20 -x c++ -fsyntax-only - 2>/dev/null ||
    die "${CXX:-g++} does not know C++20; g++ 11 or clang 14 and later do (set CXX)"
}

# check_wheel WHEEL: with auditwheel, which scripts/package has installed: does what is in it need no more
# than its name says?
check_wheel() {
  local said
  said=$(build-packages/tools/bin/auditwheel show "$1" 2>&1) || die "auditwheel: $said"
  [[ $(echo $said) == *'following platform tag: "manylinux_2_17_'* ]] || die "auditwheel: $said"
}

# cuda_headers FOLDER [VERSION]: prints the include folder of the CUDA headers: the toolkit's, or
# those of NVIDIA's packages on PyPI, unpacked below FOLDER. VERSION (such as 12.4) asks for those
# of that version, whatever is installed.
cuda_headers() {
  local folder=$1 version=${2:-} place
  if [ -z "$version" ]; then
    for place in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /opt/cuda /usr; do
      [ -n "$place" ] && [ -f "$place/include/cuda.h" ] && echo "$place/include" && return
    done
  fi
  place=$folder/cuda${version:+-$version}
  if [ ! -f "$place/include/cuda.h" ]; then
    python3 -m pip --version >/dev/null 2>&1 || install_packages python3-pip >&2
    local packages=(nvidia-cuda-runtime nvidia-cuda-crt)
    case $version in
      12*) packages=("nvidia-cuda-runtime-cu12==$version.*" "nvidia-cuda-nvcc-cu12==$version.*") ;;
      ?*) packages=("nvidia-cuda-runtime==$version.*" "nvidia-cuda-crt==$version.*") ;;
    esac
    mkdir -p "$place/wheels"
    python3 -m pip download -q --disable-pip-version-check --no-deps -d "$place/wheels" \
      "${packages[@]}" >&2 || die "${packages[*]} could not be downloaded. Where the CUDA headers \
are: CUDA_HOME=FOLDER $0 (a toolkit), or cmake with -DCMP_CUDA_INCLUDE=FOLDER (of cuda.h)"
    python3 scripts/unpack_headers.py "$place/wheels" "$place" >&2
  fi
  echo "$place/include"
}
