#!/usr/bin/env bash
# The GPU part of the speed report in one command, without network, in under 8 minutes.
# Writes reports/speed/cuda.json after every measurement, and reports/speed.md. PYTHON: the interpreter; REPORTS: another folder.
# A trial of the program without a GPU: WEIGHTAUG_SPEED=tiny DEVICE=cpu benchmarks/speed/gpu.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ -z "${PYTHON:-}" ]; then PYTHON=.venv/bin/python; [ -x "$PYTHON" ] || PYTHON=python3; fi
DEVICE=${DEVICE:-cuda}
REPORTS=${REPORTS:-reports}
export WANDB_MODE=disabled PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH}

MINUTES=${MINUTES:-6}  # no measurement is begun later; the longest takes about one
SECONDS_AT_MOST=${SECONDS_AT_MOST:-470}

status=0
timeout "$SECONDS_AT_MOST" "$PYTHON" -m benchmarks.speed.report --measure "$DEVICE" --minutes "$MINUTES" --reports "$REPORTS" || status=$?
if [ "$status" -eq 124 ]; then
  echo "weightaug: error: after $SECONDS_AT_MOST s a measurement was ended; those before it are in the report, if there were any" >&2
  "$PYTHON" -m benchmarks.speed.report --reports "$REPORTS"
fi
exit "$status"
