#!/usr/bin/env bash
# VCC 2020, task 1, as SUPERB-SG scores it: prepare, a converter to each target on a frozen upstream, convert, judge.
# Usage: egs/vcc2020/run.sh --corpus DIR [--upstream SPEC] [--variant taco2_ar] [--vocoder NAME|DIR] [--asr HEAD]
#        [--asv HEAD] [--protocol superb|fixed] [--device cpu] [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
#        [--list LIST.tsv]: conversions made elsewhere; stage 4 judges these
set -euo pipefail
stage=1 stop=4 exp=exp/vcc2020 corpus='' list='' asr='' asv='' protocol=fixed device=cpu dry_run=false prepare=()
upstream=fbank variant=taco2_ar vocoder='' targets=(TEF1 TEF2 TEM1 TEM2)
while [ $# -gt 0 ]; do
  case ${2+$1} in
    --stage) stage=$2 ;; --stop-stage) stop=$2 ;; --exp) exp=$2 ;; --corpus) corpus=$2 ;; --list) list=$2 ;;
    --asr) asr=$2 ;; --asv) asv=$2 ;; --protocol) protocol=$2 ;; --device) device=$2 ;; --dry-run) dry_run=$2 ;;
    --prepare) read -ra prepare <<< "$2" ;;
    --upstream) upstream=$2 ;; --variant) variant=$2 ;; --vocoder) vocoder=$2 ;;
    *) sed -n 3,5p "$0" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$corpus" ] || { echo "--corpus is needed: the folder that the zip files of VCC2020-database unpack to" >&2; exit 2; }
case $stage$stop in *[!0-9]*) echo "--stage and --stop-stage want numbers" >&2; exit 2 ;; esac
run() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ] && echo "== stage $1: $2"; }
do_() { if [ "$dry_run" = true ]; then echo "$*"; else "$@"; fi; }
kept() { [ -e "$1/corpus.json" ] && echo "== $1 is there already and is kept"; }
judges=(--protocol "$protocol" --device "$device" --real "$exp/corpus" ${asr:+--asr "$asr"} ${asv:+--asv "$asv"})

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  kept "$exp/corpus" || do_ mynah prepare vcc2020 "$corpus" "$exp/corpus" "${prepare[@]}"
  do_ mynah pairs "$exp/corpus" "$exp/lists" --sources role=source --references role=reference \
    --voices role=target --sentence parallel
fi
[ -n "$list" ] || for target in "${targets[@]}"; do
  if run 2 "pretrain: a converter to $target"; then
    do_ mynah pretrain "vc/$variant" --teacher "$upstream" --speaker "$target" --corpus "$exp/corpus" \
      --out "$exp/run/$target" --device "$device" --resume; fi
  if run 3 "convert: to $target"; then
    do_ mynah convert --model "$exp/run/$target" --list "$exp/lists/convert-$target.tsv" ${vocoder:+--vocoder "$vocoder"}; fi
done
if run 4 "judge"; then do_ mynah judge vc "${list:-$exp/lists/judge.tsv}" "${judges[@]}" --out "$exp/scores.json"; fi
