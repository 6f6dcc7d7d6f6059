#!/usr/bin/env bash
# Pretraining on LibriSpeech as it is unpacked: any family, any number of GPUs, any of its parts.
# Usage: egs/librispeech/run.sh --corpus LibriSpeech [--model hubert/base] [--parts "train-clean-100 ..."]
#        [--gpus N] [--iterations N] [--teacher SPEC] [--exp DIR] [--stage N] [--stop-stage N] [--dry-run true]
set -euo pipefail
stage=1 stop=3 exp=exp/librispeech corpus='' model=wav2vec2/base gpus=1 iterations='' teacher='' dry_run=false
parts="train-clean-100 train-clean-360 train-other-500"
while [ $# -gt 0 ]; do
  case ${2+$1} in
    --stage) stage=$2 ;; --stop-stage) stop=$2 ;; --exp) exp=$2 ;; --corpus) corpus=$2 ;;
    --model) model=$2 ;; --parts) parts=$2 ;; --gpus) gpus=$2 ;; --iterations) iterations=$2 ;;
    --teacher) teacher=$2 ;; --dry-run) dry_run=$2 ;;
    *) sed -n 3,4p "$0" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$corpus" ] || { echo "--corpus is needed: the folder LibriSpeech that openslr.org/12 unpacks to" >&2; exit 2; }
case $stage$stop in *[!0-9]*) echo "--stage and --stop-stage want numbers" >&2; exit 2 ;; esac
run() { [ "$stage" -le "$1" ] && [ "$stop" -ge "$1" ] && echo "== stage $1: $2"; }
do_() { if [ "$dry_run" = true ]; then echo "$*"; else "$@"; fi; }
kept() { [ -e "$1/corpus.json" ] && echo "== $1 is there already and is kept"; }
read -ra names <<< "$parts"
out="$exp/${model//\//-}"

if run 1 "prepare: every file is decoded and checked"; then
  for part in "${names[@]}"; do
    kept "$exp/data/$part" || do_ mynah prepare folder "$corpus/$part" "$exp/data/$part" \
      --from-path 'speaker=(\d+)-\d+-\d+\.flac$'
  done
fi
if run 2 "pretrain $model on $parts"; then
  launch=(mynah) && [ "$gpus" -le 1 ] || launch=(torchrun --nproc-per-node "$gpus" -m mynah)
  args=(pretrain "$model" --out "$out" --resume) # a killed run goes on where it was
  for part in "${names[@]}"; do args+=(--corpus "$exp/data/$part"); done
  [ -z "$iterations" ] || args+=(--iterations "$iterations")
  [ -z "$teacher" ] || args+=(--teacher "$teacher")
  do_ "${launch[@]}" "${args[@]}"
fi
if run 3 "check: the model keeps the contract"; then do_ mynah check upstream "$out"; fi
