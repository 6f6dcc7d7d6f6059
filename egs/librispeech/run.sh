#!/usr/bin/env bash
# Pretraining on LibriSpeech as it is unpacked: any family, any number of GPUs, any of its parts.
# Usage: egs/librispeech/run.sh --corpus LibriSpeech [--model hubert/base] [--parts "train-clean-100 ..."]
#        [--gpus N] [--iterations N] [--teacher SPEC] [--exp DIR] [--stage N] [--stop-stage N] [--dry-run true]
exp=exp/librispeech corpus='' model=wav2vec2/base gpus=1 iterations='' teacher=''
parts="train-clean-100 train-clean-360 train-other-500"
. "$(dirname "$0")/../recipe.sh"
needs corpus "the folder LibriSpeech that openslr.org/12 unpacks to"
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
