#!/usr/bin/env bash
# Audio SNIPS: slot filling.
# Usage: egs/audio_snips/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
exp=exp/audio_snips corpus='' models=fbank protocol=fixed device=cpu prepare=''
. "$(dirname "$0")/../recipe.sh"
needs corpus "the folder SNIPS with train, valid, test, all.iob.snips.txt and slots.txt"

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  kept "$exp/corpus" || do_ mynah prepare audio_snips "$corpus" "$exp/corpus" "${handed[@]}"
fi
if run 2 "bench: extract once, probe"; then bench "$exp/corpus" --tasks sf; fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
