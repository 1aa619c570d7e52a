# Sourced by ./demo and ./test: brings a fresh Debian or Ubuntu machine to where the project builds.
# Installs Debian packages, and says which; writes one apt source on Debian 12 (backports, for QEMU);
# brings Rust by rustup when there is none that is new enough. Touches nothing else.

RUST_NEEDED=1.95
# To build: a C linker, libvirt's headers. For the tests: libvirt's schemas, xmllint, and guestfs-tools
# with an image built from Debian packages for guests without cloud-init; a font to measure pictures.
BUILD_PACKAGES=(ca-certificates gcc libc6-dev pkg-config libvirt-dev)
TEST_PACKAGES=(libvirt-clients libxml2-utils qemu-utils xorriso mmdebstrap guestfs-tools libguestfs-tools libguestfs-xfs dpkg-dev fonts-dejavu-core)

started=$SECONDS
say() { printf '\033[1m[%02d:%02d]\033[0m %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$*"; }
# Without colour where nobody looks.
[ -t 1 ] || say() { printf '[%02d:%02d] %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 3; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Runs a long command whose output goes to a log; a line every 20 seconds says that it goes on, and
# its last lines are shown when it fails.
quietly() {
  local what=$1 log=$2
  shift 2
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 &
  await "$what" "$log" $! "$SECONDS"
}

# Starts such a command beside others; `ended` waits for it. One at a time. When the script ends
# before, it ends too, with all that it started.
beside() {
  BESIDE=$1 BESIDE_LOG=$2 BESIDE_SINCE=$SECONDS
  shift 2
  mkdir -p "$(dirname "$BESIDE_LOG")"
  say "meanwhile: $BESIDE"
  # A process group of its own.
  set -m
  "$@" >"$BESIDE_LOG" 2>&1 </dev/null &
  BESIDE_PID=$!
  set +m
  trap 'as_root kill -- "-$BESIDE_PID" 2>/dev/null || true' EXIT
}

ended() {
  await "$BESIDE" "$BESIDE_LOG" "$BESIDE_PID" "$BESIDE_SINCE"
  trap - EXIT
}

await() {
  local what=$1 log=$2 pid=$3 begun=$4 waited=0
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    waited=$((waited + 1))
    if [ $((waited % 20)) = 0 ]; then say "  … $what ($((SECONDS - begun)) s): $(tail -n 1 "$log" | cut -c1-100)"; fi
  done
  if ! wait "$pid"; then
    tail -n 30 "$log" >&2
    die "$what failed; the whole log is $log"
  fi
}

check_system() {
  local id version codename
  id=$(. /etc/os-release 2>/dev/null && echo "${ID:-}")
  version=$(. /etc/os-release 2>/dev/null && echo "${VERSION_ID:-0}")
  codename=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}")
  case "$id" in
    debian) [ "${version%%.*}" -ge 12 ] || die "this is Debian $version; Debian 12 or newer is needed (QEMU 8 or newer for SR-IOV)" ;;
    ubuntu) [ "${version%%.*}" -ge 24 ] || die "this is Ubuntu $version; Ubuntu 24.04 or newer is needed (QEMU 8 or newer for SR-IOV)" ;;
    *) die "this is ${id:-an unknown system}; the set-up knows Debian (12 or newer) and Ubuntu (24.04 or newer). README.md lists what to install by hand elsewhere" ;;
  esac
  [ "$(uname -m)" = x86_64 ] || die "this is $(uname -m); the lab emulates an x86_64 server and is only tried on x86_64"
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then die "root is needed to install packages and to make taps; run as root, or install sudo"; fi
  SYSTEM_CODENAME=$codename
}

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
  done
}

# install_packages LOG PACKAGE...: what is missing of them, QEMU from backports on Debian 12.
install_packages() {
  local log=$1
  shift
  # `name/release`, as apt takes it, is `name` for dpkg; the release is chosen below.
  set -- "${@%%/*}"
  local missing plain=() backports=() package
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  say "installing packages: $(echo $missing)"
  for package in $missing; do
    case "$SYSTEM_CODENAME/$package" in
      bookworm/qemu-system-* | bookworm/qemu-utils | bookworm/ovmf | bookworm/seabios | bookworm/ipxe-qemu) backports+=("$package") ;;
      *) plain+=("$package") ;;
    esac
  done
  if [ ${#backports[@]} -gt 0 ] && ! apt-cache policy 2>/dev/null | grep -q 'bookworm-backports'; then
    say "  adding /etc/apt/sources.list.d/bmslice-backports.list (Debian 12's own QEMU 7.2 has no SR-IOV NIC)"
    echo 'deb http://deb.debian.org/debian bookworm-backports main' | as_root tee /etc/apt/sources.list.d/bmslice-backports.list >/dev/null
  fi
  quietly "updating the package lists" "$log" as_root env DEBIAN_FRONTEND=noninteractive apt-get update
  if [ ${#plain[@]} -gt 0 ]; then
    quietly "installing packages" "$log" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${plain[@]}"
  fi
  if [ ${#backports[@]} -gt 0 ]; then
    quietly "installing QEMU from backports" "$log" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -t bookworm-backports "${backports[@]}"
  fi
}

rust_is_new_enough() {
  local have
  have=$(rustc --version 2>/dev/null | cut -d' ' -f2) || return 1
  [ -n "$have" ] && [ "$(printf '%s\n%s\n' "$RUST_NEEDED" "$have" | sort -V | head -n 1)" = "$RUST_NEEDED" ]
}

install_rust() {
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  rust_is_new_enough && return 0
  say "installing Rust $RUST_NEEDED or newer with rustup, for this user"
  if ! command -v rustup >/dev/null; then
    if apt-cache show rustup >/dev/null 2>&1; then
      install_packages "$1" rustup
    else
      install_packages "$1" curl
      quietly "fetching rustup" "$1" sh -c 'curl --proto "=https" --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none'
      . "$HOME/.cargo/env"
    fi
  fi
  quietly "installing Rust" "$1" rustup toolchain install stable --profile minimal --component clippy --component rustfmt
  quietly "choosing Rust" "$1" rustup default stable
  rust_is_new_enough || die "Rust $RUST_NEEDED is needed and $(rustc --version 2>&1) is there"
}
