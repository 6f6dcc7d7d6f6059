#!/usr/bin/env bash
# VCTK: voice converters of several kinds, judged on speakers that none of them has heard.
# Usage: egs/vctk/run.sh --corpus VCTK-Corpus-0.92 [--methods "adain vq ..."] [--teacher SPEC] [--vocoder NAME|DIR]
#        [--asr HEAD] [--asv HEAD] [--pairs N] [--device cpu] [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
set -euo pipefail
stage=1 stop=3 exp=exp/vctk corpus='' methods="autoencoder adversarial adain vq" teacher='' vocoder='' asr='' asv=''
pairs=100 device=cpu dry_run=false prepare=() runs=()
while [ $# -gt 0 ]; do
  case ${2+$1} in
    --stage) stage=$2 ;; --stop-stage) stop=$2 ;; --exp) exp=$2 ;; --corpus) corpus=$2 ;; --methods) methods=$2 ;;
    --teacher) teacher=$2 ;; --vocoder) vocoder=$2 ;; --asr) asr=$2 ;; --asv) asv=$2 ;; --pairs) pairs=$2 ;;
    --device) device=$2 ;; --dry-run) dry_run=$2 ;;
    --prepare) read -ra prepare <<< "$2" ;;
    *) sed -n 3,4p "$0" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$corpus" ] || { echo "--corpus is needed: VCTK-Corpus-0.92 as it is unpacked" >&2; exit 2; }
case $stage$stop in *[!0-9]*) echo "--stage and --stop-stage want numbers" >&2; exit 2 ;; esac
run() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ] && echo "== stage $1: $2"; }
do_() { if [ "$dry_run" = true ]; then echo "$*"; else "$@"; fi; }
kept() { [ -e "$1/corpus.json" ] && echo "== $1 is there already and is kept"; }
for method in $methods; do runs+=("$exp/run/${method//\//-}"); done

if run 1 "prepare: speakers of both genders are held out"; then
  kept "$exp/corpus" || do_ mynah prepare vctk "$corpus" "$exp/corpus" "${prepare[@]}"
fi
if run 2 "pretrain: $methods"; then
  for method in $methods; do
    do_ mynah pretrain "vc/$method" --corpus "$exp/corpus" --out "$exp/run/${method//\//-}" --device "$device" \
      --resume ${teacher:+--teacher "$teacher"}
  done
fi
if run 3 "judge: against each other, methods without training, and what bounds them"; then
  do_ mynah judge methods stats mkl knn "${runs[@]}" --corpus "$exp/corpus" --split test --sentence text \
    --pairs "$pairs" --out "$exp/methods.json" ${vocoder:+--vocoder "$vocoder"} ${asr:+--asr "$asr"} ${asv:+--asv "$asv"}
fi
