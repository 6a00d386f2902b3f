#!/usr/bin/env bash
# Everything this project does on an NVIDIA GPU, in one command: training, ONNX Runtime's CUDA and TensorRT providers,
# every installed TensorRT product with every precision, parity and latency -> one JSON. Not yet run on a GPU.
#
#   scripts/gpu_check.sh [--here] [--no-torch] [--tensorrt] [-o gpu_check.json]
#
# Makes its own environment in .venv-gpu from constraints.txt (about 10 GB; 3 GB with --no-torch); --here takes the
# python that is there as it is. --tensorrt adds TensorRT itself, from NVIDIA's index.
# Exit code: 0 something ran on a GPU and nothing failed, 1 a step failed, 2 it could not begin, 3 nothing ran on a GPU.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

torch=train, tensorrt='' here='' options=()
while (($#)); do
    case $1 in
        --here) here=1 ;;
        --no-torch) torch='' ;;
        --tensorrt) tensorrt=,trt ;;
        *) options+=("$1") ;;
    esac
    shift
done

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or later is needed; name one with: PYTHON=python3.12 $0" >&2
    exit 2
}
if [[ -z $here ]]; then
    [[ -x $root/.venv-gpu/bin/python ]] || "$python" -m venv "$root/.venv-gpu" || exit 2
    python=$root/.venv-gpu/bin/python
    index=()
    [[ -z $tensorrt ]] || index=(--extra-index-url https://pypi.nvidia.com)
    "$python" -m pip install --quiet --disable-pip-version-check "${index[@]}" \
        -c "$root/constraints.txt" -e "${root}[${torch}gpu,rtx${tensorrt}]" || exit 2
fi
exec "$python" "$root/scripts/gpu_check.py" "${options[@]}"
