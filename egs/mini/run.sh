#!/usr/bin/env bash
# The main job on the embedded corpus: prepare, pretrain, freeze, extract once, probe, report.
# Usage: egs/mini/run.sh [--stage N] [--stop-stage N] [--exp DIR] [--steps N]
set -euo pipefail
stage=1 stop=4 exp=exp/mini steps=600
while [ $# -gt 0 ]; do
  case $1 in
    --stage) stage=$2 ;; --stop-stage) stop=$2 ;; --exp) exp=$2 ;; --steps) steps=$2 ;;
    *) echo "unknown option $1; known: --stage --stop-stage --exp --steps" >&2; exit 2 ;;
  esac
  shift 2
done
run() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ] && echo "== stage $1: $2"; }

if run 1 "prepare: synthesise the corpus"; then
  mynah prepare mini "$exp/corpus"
fi
if run 2 "pretrain: three tiny upstreams on the training speakers"; then
  for model in apc mockingjay wav2vec2; do
    mynah pretrain "$model/tiny" --corpus "$exp/corpus" --out "$exp/pretrain/$model" --resume
  done
fi
if run 3 "bench: extract once, probe every task"; then
  mynah bench fbank "$exp"/pretrain/{apc,mockingjay,wav2vec2} --tasks ks sid er pr \
    --corpus "$exp/corpus" --out "$exp/results" --store "$exp/store" --steps "$steps"
fi
if run 4 "report: table and page"; then
  mynah table "$exp/results"
  mynah report "$exp/results" --out "$exp/report.html"
fi
