#!/usr/bin/env bash
# VoiceBank-DEMAND: speech enhancement.
# Usage: egs/voicebank_demand/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
set -euo pipefail
stage=1 stop=3 exp=exp/voicebank_demand corpus='' models=fbank protocol=fixed device=cpu dry_run=false prepare=()
while [ $# -gt 0 ]; do
  case ${2+$1} in
    --stage) stage=$2 ;; --stop-stage) stop=$2 ;; --exp) exp=$2 ;; --corpus) corpus=$2 ;;
    --models) models=$2 ;; --protocol) protocol=$2 ;; --device) device=$2 ;; --dry-run) dry_run=$2 ;;
    --prepare) read -ra prepare <<< "$2" ;;
    *) sed -n 3,4p "$0" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$corpus" ] || { echo "--corpus is needed: the folder with noisy_ and clean_ of trainset_28spk_wav_16k and testset_wav_16k" >&2; exit 2; }
case $stage$stop in *[!0-9]*) echo "--stage and --stop-stage want numbers" >&2; exit 2 ;; esac
run() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ] && echo "== stage $1: $2"; }
do_() { if [ "$dry_run" = true ]; then echo "$*"; else "$@"; fi; }
kept() { [ -e "$1/corpus.json" ] && echo "== $1 is there already and is kept"; }
read -ra specs <<< "$models"
common=(--out "$exp/results" --store "$exp/store" --protocol "$protocol" --device "$device")

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  kept "$exp/corpus" || do_ mynah prepare voicebank_demand "$corpus" "$exp/corpus" "${prepare[@]}"
fi
if run 2 "bench: extract once, probe"; then
  do_ mynah bench "${specs[@]}" --tasks se --corpus "$exp/corpus" "${common[@]}"
fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
