#!/usr/bin/env bash
# Makes exported/digits, the committed reference release, from nothing. Run through `make train`.
# Engines are left out: `hwr-export trt exported/digits` rebuilds them in seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

python -m train fetch mnist
python -m train fit train/recipes/digits-edge.yaml -o runs/digits-edge --resume
hwr-export onnx runs/digits-edge -o exported/digits
hwr-export parity exported/digits
hwr-export bench exported/digits
python -m train evaluate exported/digits --data mnist
hwr-export show exported/digits
