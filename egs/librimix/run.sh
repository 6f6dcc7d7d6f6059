#!/usr/bin/env bash
# Libri2Mix: separation (Libri2Mix/wav16k/min), and diarisation (wav16k/max) where its Kaldi folders are given.
# Usage: egs/librimix/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--diarisation DIR] [--tasks "ss sd"] [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
set -euo pipefail
stage=1 stop=3 exp=exp/librimix corpus='' models=fbank protocol=fixed device=cpu dry_run=false prepare=() diarisation='' tasks=''
while [ $# -gt 0 ]; do
  case ${2+$1} in
    --stage) stage=$2 ;; --stop-stage) stop=$2 ;; --exp) exp=$2 ;; --corpus) corpus=$2 ;;
    --models) models=$2 ;; --protocol) protocol=$2 ;; --device) device=$2 ;; --dry-run) dry_run=$2 ;;
    --prepare) read -ra prepare <<< "$2" ;;
    --diarisation) diarisation=$2 ;; --tasks) tasks=$2 ;;
    *) sed -n 3,4p "$0" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$corpus" ] || { echo "--corpus is needed: the folder Libri2Mix that LibriMix generates" >&2; exit 2; }
tasks=${tasks:-ss${diarisation:+ sd}}
[[ $tasks != *sd* || -n $diarisation ]] || { echo "sd needs --diarisation: the Kaldi folders of prepare_diarization.py" >&2; exit 2; }
case $stage$stop in *[!0-9]*) echo "--stage and --stop-stage want numbers" >&2; exit 2 ;; esac
run() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ] && echo "== stage $1: $2"; }
do_() { if [ "$dry_run" = true ]; then echo "$*"; else "$@"; fi; }
kept() { [ -e "$1/corpus.json" ] && echo "== $1 is there already and is kept"; }
read -ra specs <<< "$models"
common=(--out "$exp/results" --store "$exp/store" --protocol "$protocol" --device "$device")

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  if [[ $tasks == *ss* ]] && ! kept "$exp/ss"; then
    do_ mynah prepare librimix "$corpus" "$exp/ss" --variant ss "${prepare[@]}"
  fi
  if [[ $tasks == *sd* ]] && ! kept "$exp/sd"; then
    do_ mynah prepare librimix "$diarisation" "$exp/sd" --variant sd --audio-root "$corpus" "${prepare[@]}"
  fi
fi
if run 2 "bench: extract once, probe"; then
  for task in $tasks; do
    do_ mynah bench "${specs[@]}" --tasks "$task" --corpus "$exp/$task" "${common[@]}"
  done
fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
