#!/usr/bin/env bash
# The GPU part of the speed report in one command, without network, in under 8 minutes.
# Writes reports/speed/cuda.json and reports/speed.md. PYTHON: the interpreter; REPORTS: another folder.
# A trial of the program without a GPU: WEIGHTAUG_SPEED=tiny DEVICE=cpu benchmarks/speed/gpu.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ -z "${PYTHON:-}" ]; then PYTHON=.venv/bin/python; [ -x "$PYTHON" ] || PYTHON=python3; fi
DEVICE=${DEVICE:-cuda}
REPORTS=${REPORTS:-reports}
export WANDB_MODE=disabled PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH}

status=0
timeout "${SECONDS_AT_MOST:-470}" "$PYTHON" -m benchmarks.speed.report --measure "$DEVICE" --reports "$REPORTS" || status=$?
if [ "$status" -eq 124 ]; then
  echo "weightaug: error: the measurement took more than ${SECONDS_AT_MOST:-470} s and was ended; nothing was written" >&2
fi
exit "$status"
