#!/usr/bin/env bash
# VoxCeleb1: speaker identification and verification.
# Usage: egs/voxceleb1/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
exp=exp/voxceleb1 corpus='' models=fbank protocol=fixed device=cpu prepare=''
. "$(dirname "$0")/../recipe.sh"
needs corpus "the folder with dev/wav, test/wav, iden_split.txt and voxceleb1_test_v2.txt"

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  kept "$exp/corpus" || do_ mynah prepare voxceleb1 "$corpus" "$exp/corpus" "${handed[@]}"
fi
if run 2 "bench: extract once, probe"; then bench "$exp/corpus" --tasks sid asv; fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
