#!/usr/bin/env bash
# The whole way in front of the user: handwriting -> checkpoint -> ONNX -> engines -> parity -> latency -> reading, and
# filled-in forms through the release that is committed, which was calibrated on forms.
# Prints each command before it runs it. Run through `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."

run() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

run python -m train fetch mnist
run python -m train fit train/recipes/digits-edge-demo.yaml -o runs/demo --resume
run hwr-export onnx runs/demo -o exported/demo
run hwr-export trt exported/demo
run hwr-export parity exported/demo
run hwr-export bench exported/demo --seconds 1 --backend onnxruntime --backend openvino --starts 1
run python -m train samples mnist -n 8 -o runs/demo-samples
run hwr-export read runs/demo-samples/*.png --release exported/demo
rm -rf runs/demo-pages runs/demo-decisions
run hwr-export form make docs/examples/meter-reading.yaml -o runs/demo-form.pdf
run python scripts/make_pages.py runs/demo-pages --form docs/examples/meter-reading.yaml --pages 3 --seed 5
run hwr-export read-form runs/demo-pages --form docs/examples/meter-reading.yaml --release exported/digits \
    --annotate runs/demo-decisions
run hwr-export report exported/demo
run hwr-export show exported/demo
printf '\nThe release is in exported/demo; exported/demo/report.html says what is in it; runs/demo-decisions shows the forms.\n'
