#!/usr/bin/env bash
# Everything this project does on a Jetson, in one command: TensorRT plans of every precision built, run and compared
# there, with the power mode and clocks of the board -> one JSON. Not yet run on a Jetson.
#
#   scripts/jetson_check.sh [--here] [-o jetson_check.json]
#
# Makes its own environment in .venv-jetson from constraints.txt, which sees JetPack's own packages; --here takes the
# python that is there as it is. Torch is used where JetPack's python has it. To have the clocks recorded, run as root.
# Exit code: 0 something ran on the GPU and nothing failed, 1 a step failed, 2 it could not begin, 3 nothing ran on it.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

here='' options=(-o jetson_check.json)
while (($#)); do
    case $1 in
        --here) here=1 ;;
        *) options+=("$1") ;;
    esac
    shift
done

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "Python 3.10 or later is needed, with a TensorRT module for it; name one with: PYTHON=python3.10 $0" >&2
    exit 2
}
if [[ -z $here ]]; then
    [[ -x $root/.venv-jetson/bin/python ]] || "$python" -m venv --system-site-packages "$root/.venv-jetson" || exit 2
    python=$root/.venv-jetson/bin/python
    pip=("$python" -m pip install --quiet --disable-pip-version-check)
    "${pip[@]}" -e "${root}[cpu]" onnx || exit 2  # constraints.txt is for newer Pythons than JetPack 6 has
    # cuda-python's major version is that of the CUDA which JetPack brings.
    cuda=$(sed -n 's/.*"version" *: *"\([0-9]*\)\..*/\1/p' /usr/local/cuda/version.json | head -n 1)
    "${pip[@]}" "cuda-python==${cuda:?/usr/local/cuda/version.json names no version}.*" || exit 2
fi
exec "$python" "$root/scripts/gpu_check.py" --jetson "${options[@]}"
