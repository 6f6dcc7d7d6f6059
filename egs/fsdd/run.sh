#!/usr/bin/env bash
# The Free Spoken Digit Dataset: what pretraining on four speakers buys for digits of a fifth and sixth.
# Usage: egs/fsdd/run.sh --corpus free-spoken-digit-dataset [--models "apc/tiny ..."] [--seeds "0 1 2"]
#        [--exp DIR] [--jobs N] [--stage N] [--stop-stage N] [--dry-run true]
set -euo pipefail
stage=1 stop=2 exp=exp/fsdd corpus='' models="apc/tiny mockingjay/tiny hubert/tiny best_rq/tiny" seeds="0 1 2" jobs=2 dry_run=false
while [ $# -gt 0 ]; do
  case ${2+$1} in
    --stage) stage=$2 ;; --stop-stage) stop=$2 ;; --exp) exp=$2 ;; --corpus) corpus=$2 ;;
    --models) models=$2 ;; --seeds) seeds=$2 ;; --jobs) jobs=$2 ;; --dry-run) dry_run=$2 ;;
    *) sed -n 3,4p "$0" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$corpus" ] || { echo "--corpus is needed: a checkout of Jakobovski/free-spoken-digit-dataset" >&2; exit 2; }
case $stage$stop in *[!0-9]*) echo "--stage and --stop-stage want numbers" >&2; exit 2 ;; esac
run() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ] && echo "== stage $1: $2"; }
do_() { if [ "$dry_run" = true ]; then echo "$*"; else "$@"; fi; }
kept() { [ -e "$1/corpus.json" ] && echo "== $1 is there already and is kept"; }
read -ra chosen <<< "$models" && read -ra numbers <<< "$seeds"

if run 1 "prepare: digit and speaker are in the file names"; then
  kept "$exp/corpus" || do_ mynah prepare folder "$corpus/recordings" "$exp/corpus" \
    --from-path 'keyword=(\d)_[a-z]+_\d+\.wav$' --from-path 'speaker=\d_([a-z]+)_\d+\.wav$' \
    --held-out speaker=theo,yweweler --dev-held-out speaker=nicolas
fi
if run 2 "pretrain, probe, compare with untrained models and filter banks"; then
  do_ mynah gain "${chosen[@]}" --corpus "$exp/corpus" --probe "ks:$exp/corpus:500" \
    --seeds "${numbers[@]}" --out "$exp/gain" --jobs "$jobs"
fi
