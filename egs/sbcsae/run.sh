#!/usr/bin/env bash
# SBCSAE: recognition of spontaneous American English (OOD-ASR).
# Usage: egs/sbcsae/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
exp=exp/sbcsae corpus='' models=fbank protocol=fixed device=cpu prepare=''
. "$(dirname "$0")/../recipe.sh"
needs corpus "the folder with wav, train.tsv, dev.tsv and test.tsv that SBCSAE-preprocess writes"

if run 1 "prepare: every file is decoded and checked"; then
  kept "$exp/corpus" || do_ mynah prepare sbcsae "$corpus" "$exp/corpus" "${handed[@]}"
fi
if run 2 "bench: extract once, probe"; then bench "$exp/corpus" --tasks ood_asr; fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
