#!/usr/bin/env bash
# The main job on the embedded corpus: prepare, pretrain, freeze, extract once, probe, report.
# Usage: egs/mini/run.sh [--stage N] [--stop-stage N] [--exp DIR] [--steps N] [--probe-steps N]
set -euo pipefail
stage=1 stop=4 exp=exp/mini steps=500 probe_steps=300
while [ $# -gt 0 ]; do
  case ${2+$1} in
    --stage) stage=$2 ;; --stop-stage) stop=$2 ;; --exp) exp=$2 ;;
    --steps) steps=$2 ;; --probe-steps) probe_steps=$2 ;;
    *) echo "unknown option $1; known: --stage --stop-stage --exp --steps --probe-steps" >&2; exit 2 ;;
  esac
  shift 2
done
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # three small models side by side beat one on all cores
case $stage$stop in *[!0-9]*) echo "--stage and --stop-stage want numbers" >&2; exit 2 ;; esac
run() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ] && echo "== stage $1: $2"; }
models=(apc mockingjay wav2vec2)

if run 1 "prepare: synthesise the corpus"; then
  mynah prepare mini "$exp/corpus"
fi
if run 2 "pretrain: ${models[*]}, side by side; progress in $exp/pretrain/*.log"; then
  mkdir -p "$exp/pretrain" && jobs=()
  for model in "${models[@]}"; do
    mynah pretrain "$model/tiny" --corpus "$exp/corpus" --out "$exp/pretrain/$model" \
      --steps "$steps" --resume > "$exp/pretrain/$model.log" 2>&1 & jobs+=("$!")
  done
  for job in "${jobs[@]}"; do wait "$job" || { tail -n 5 "$exp"/pretrain/*.log; exit 1; }; done
fi
if run 3 "bench: extract once, probe every task"; then
  mynah bench fbank "${models[@]/#/$exp/pretrain/}" --tasks ks sid er pr \
    --corpus "$exp/corpus" --out "$exp/results" --store "$exp/store" --steps "$probe_steps"
fi
if run 4 "report: table and page"; then
  mynah table "$exp/results"
  mynah report "$exp/results" --out "$exp/report.html" && echo "open $exp/report.html"
fi
