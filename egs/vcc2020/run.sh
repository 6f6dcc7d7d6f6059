#!/usr/bin/env bash
# VCC 2020, task 1: prepare, and score conversions that were made elsewhere (see `mynah judge --help`).
# Usage: egs/vcc2020/run.sh --corpus DIR [--list LIST.tsv] [--asr HEAD] [--asv HEAD] [--protocol superb|fixed]
#        [--device cpu] [--exp DIR] [--stage N] [--stop-stage N] [--dry-run true]
set -euo pipefail
stage=1 stop=2 exp=exp/vcc2020 corpus='' list='' asr='' asv='' protocol=fixed device=cpu dry_run=false
while [ $# -gt 0 ]; do
  case $1 in
    --stage) stage=$2 ;; --stop-stage) stop=$2 ;; --exp) exp=$2 ;; --corpus) corpus=$2 ;; --list) list=$2 ;;
    --asr) asr=$2 ;; --asv) asv=$2 ;; --protocol) protocol=$2 ;; --device) device=$2 ;; --dry-run) dry_run=$2 ;;
    *) sed -n 3,4p "$0" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$corpus" ] || { echo "--corpus is needed: the folder that the zip files of VCC2020-database unpack to" >&2; exit 2; }
run() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ] && echo "== stage $1: $2"; }
do_() { if [ "$dry_run" = true ]; then echo "$*"; else "$@"; fi; }
judges=(--protocol "$protocol" --device "$device" --real "$exp/corpus" ${asr:+--asr "$asr"} ${asv:+--asv "$asv"})

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  [ -e "$exp/corpus/corpus.json" ] || do_ mynah prepare vcc2020 "$corpus" "$exp/corpus"
fi
if run 2 "judge: score a list of conversions"; then
  [ -n "$list" ] || { echo "stage 2 needs --list: a TSV of converted files" >&2; exit 2; }
  do_ mynah judge vc "$list" "${judges[@]}" --out "$exp/scores.json"
fi
