#!/usr/bin/env bash
# Voice conversion on the embedded corpus: train converters, probe their codes, compare them all (extra [audio]).
# Usage: egs/mini_vc/run.sh [--methods "autoencoder adain vq"] [--steps N] [--pairs N] [--corpus PREPARED] [--exp DIR]
#        [--stage N] [--stop-stage N] [--dry-run true]
set -euo pipefail
stage=1 stop=5 exp=exp/mini_vc corpus='' methods="autoencoder adain vq" steps=600 pairs=40 dry_run=false runs=()
while [ $# -gt 0 ]; do
  case ${2+$1} in
    --stage) stage=$2 ;; --stop-stage) stop=$2 ;; --exp) exp=$2 ;; --corpus) corpus=$2 ;; --methods) methods=$2 ;;
    --steps) steps=$2 ;; --pairs) pairs=$2 ;; --dry-run) dry_run=$2 ;;
    *) sed -n 3,4p "$0" >&2; exit 2 ;;
  esac
  shift 2
done
corpus=${corpus:-$exp/corpus}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
case $stage$stop in *[!0-9]*) echo "--stage and --stop-stage want numbers" >&2; exit 2 ;; esac
run() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ] && echo "== stage $1: $2"; }
do_() { if [ "$dry_run" = true ]; then echo "$*"; else "$@"; fi; }
kept() { [ -e "$1/corpus.json" ] && echo "== $1 is there already and is kept"; }
for method in $methods; do runs+=("$exp/run/$method"); done

if run 1 "prepare: synthesise the corpus, in which speakers say the same sentences"; then
  kept "$corpus" || do_ mynah prepare mini "$corpus"
fi
if run 2 "pretrain: $methods"; then
  for method in $methods; do
    do_ mynah pretrain "vc/$method-tiny" --corpus "$corpus" --out "$exp/run/$method" --steps "$steps" --resume
  done
fi
if run 3 "probe: what codes still say of speaker and sentence"; then
  do_ mynah judge codes "${runs[@]}" --corpus "$corpus" --sentence keyword --out "$exp/codes.json"
fi
if run 4 "judge: converters, methods without training, anchors; audio stays in $exp/audio"; then
  [ "$dry_run" = true ] || [ -e "$exp/methods.json" ] || rm -rf "$exp/audio" # of a run that was cut short
  [ -e "$exp/methods.json" ] || do_ mynah judge methods stats mkl knn "${runs[@]}" --corpus "$corpus" --split all \
    --sentence parallel --pairs "$pairs" --keep "$exp/audio" --out "$exp/methods.json"
fi
if run 5 "next: a page to hear and compare"; then echo "mynah demo --gallery $corpus"; fi
