#!/usr/bin/env bash
# Makes a blank Jetson, Raspberry Pi or other Linux machine with systemd ready for `hwr-scan`: user, directories, virtual
# environment, units. Run as root; run again, it brings the software up to date and changes nothing else.
#
#   scripts/install_device.sh [--wheels DIR] [--extras cpu,scan] [--key FILE]... [--prefix DIR] [--dry-run]
#
#   --wheels DIR   install from the wheels in DIR, with no network; else from pip's package index
#   --extras LIST  cpu,scan reads crops and rows of boxes; cpu,scan,forms brings OpenCV for forms too
#   --key FILE     trust who has this key: a public key (.pub, .pem) or an authority's certificate (.crt)
#   --prefix DIR   put everything below DIR, with no user and no systemctl: to try it out, or to make an image
#   --dry-run      print what would be done, one command a line
#
# Exit code: 0 done, 1 a step failed, 2 it could not begin; nothing was changed then.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

user=hwr-scan wheels='' extras=cpu,scan keys=() prefix='' dry=''
fail() {
    echo "$1" >&2
    exit 2
}
while (($#)); do
    case $1 in
        --wheels | --extras | --key | --prefix)
            (($# > 1)) || fail "$1 needs a value; see the first lines of $0"
            case $1 in
                --wheels) wheels=$2 ;;
                --extras) extras=$2 ;;
                --key) keys+=("$2") ;;
                --prefix) prefix=${2%/} ;;
            esac
            shift 2
            ;;
        --dry-run) dry=1 && shift ;;
        *) fail "there is no option $1; see the first lines of $0" ;;
    esac
done

run() {
    if [[ -n $dry ]]; then
        echo "${*@Q}"
    else
        "$@"
    fi
}

python=${PYTHON:-python3}
"$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    fail "Python 3.10 or later with venv is needed (apt-get install python3-venv); name another with: PYTHON=... $0"
[[ -z $wheels || -d $wheels ]] || fail "there is no folder of wheels $wheels"
for key in "${keys[@]}"; do
    [[ -f $key && $key =~ \.(pub|pem|crt)$ ]] || fail "$key is no key file: expected an existing .pub, .pem or .crt"
    ! grep -q 'PRIVATE KEY' "$key" || fail "$key is a private key, which must never be on a device"
done
if [[ -z $prefix ]]; then
    [[ -n $dry || $(id -u) == 0 ]] || fail "run this as root, or try it out with --prefix DIR"
    command -v systemctl >/dev/null || fail "there is no systemd here; see docs/device.md for what to run instead"
fi

program=$prefix/opt/hwr-scan configuration=$prefix/etc/hwr-scan units=$prefix/etc/systemd/system
root=$prefix/var/lib/hwr-scan

owner=()
if [[ -z $prefix ]]; then
    owner=(-o "$user" -g "$user")
    id "$user" >/dev/null 2>&1 || run useradd --system --user-group --home-dir "$root" --shell /usr/sbin/nologin "$user"
    # scanner: SANE's devices. render, video: a Jetson's GPU. Each is there only where something needs it.
    for group in scanner lp plugdev render video; do
        if getent group "$group" >/dev/null; then
            run usermod --append --groups "$group" "$user"
        fi
    done
fi
run install -d -m 755 "$program" "$configuration" "$units"
run install -d -m 750 "${owner[@]}" "$root" "$root/incoming"
# What is trusted is root's to change, not the service's; the link is where `hwr-scan install` looks by itself.
run install -d -m 755 "$configuration/trusted"
for key in "${keys[@]}"; do
    run install -m 644 "$key" "$configuration/trusted/"
done
[[ -L $root/trusted ]] || run ln -s /etc/hwr-scan/trusted "$root/trusted"

site=()
[[ ! -f /etc/nv_tegra_release ]] || site=(--system-site-packages) # JetPack brings TensorRT as a system's package
[[ -x $program/bin/python ]] || run "$python" -m venv "${site[@]}" "$program"
source=()
[[ -z $wheels ]] || source=(--no-index --find-links "$wheels")
run "$program/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "${source[@]}" "hwr-export[$extras]"

for unit in "$here"/systemd/*; do
    run install -m 644 "$unit" "$units/"
done
if [[ -z $prefix ]]; then
    run systemctl daemon-reload
    run systemctl enable --now hwr-scan-update.timer
fi
[[ -n $dry ]] || echo "Ready. Next: a release (hwr-scan install), $configuration/scan.toml, systemctl enable --now hwr-scan."
