#!/usr/bin/env bash
# VoiceBank-DEMAND: speech enhancement.
# Usage: egs/voicebank_demand/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
exp=exp/voicebank_demand corpus='' models=fbank protocol=fixed device=cpu prepare=''
. "$(dirname "$0")/../recipe.sh"
needs corpus "the folder with noisy_ and clean_ of trainset_28spk_wav_16k and testset_wav_16k"

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  kept "$exp/corpus" || do_ mynah prepare voicebank_demand "$corpus" "$exp/corpus" "${handed[@]}"
fi
if run 2 "bench: extract once, probe"; then bench "$exp/corpus" --tasks se; fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
