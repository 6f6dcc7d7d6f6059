#!/usr/bin/env bash
# Libri2Mix: separation (Libri2Mix/wav16k/min), and diarisation where its Kaldi folders are given.
# Usage: egs/librimix/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--diarisation DIR] [--exp DIR] [--stage N] [--stop-stage N] [--dry-run true]
set -euo pipefail
stage=1 stop=3 exp=exp/librimix corpus='' models=fbank protocol=fixed device=cpu dry_run=false diarisation=''
while [ $# -gt 0 ]; do
  case ${2+$1} in
    --stage) stage=$2 ;; --stop-stage) stop=$2 ;; --exp) exp=$2 ;; --corpus) corpus=$2 ;;
    --models) models=$2 ;; --protocol) protocol=$2 ;; --device) device=$2 ;; --dry-run) dry_run=$2 ;;
    --diarisation) diarisation=$2 ;;
    *) sed -n 3,4p "$0" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$corpus" ] || { echo "--corpus is needed: the folder Libri2Mix that LibriMix generates" >&2; exit 2; }
run() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ] && echo "== stage $1: $2"; }
do_() { if [ "$dry_run" = true ]; then echo "$*"; else "$@"; fi; }
kept() { [ -e "$1/corpus.json" ] && echo "== $1 is there already and is kept"; }
read -ra specs <<< "$models"
common=(--out "$exp/results" --store "$exp/store" --protocol "$protocol" --device "$device")

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  kept "$exp/ss" || do_ mynah prepare librimix "$corpus" "$exp/ss" --variant ss
  [ -z "$diarisation" ] || kept "$exp/sd" ||
    do_ mynah prepare librimix "$diarisation" "$exp/sd" --variant sd --audio-root "$corpus"
fi
if run 2 "bench: extract once, probe"; then
  do_ mynah bench "${specs[@]}" --tasks ss --corpus "$exp/ss" "${common[@]}"
  [ -z "$diarisation" ] || do_ mynah bench "${specs[@]}" --tasks sd --corpus "$exp/sd" "${common[@]}"
fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
