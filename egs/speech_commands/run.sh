#!/usr/bin/env bash
# Speech Commands v0.01: keyword spotting.
# Usage: egs/speech_commands/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
exp=exp/speech_commands corpus='' models=fbank protocol=fixed device=cpu prepare=''
. "$(dirname "$0")/../recipe.sh"
needs corpus "the folder that holds speech_commands_v0.01 and speech_commands_test_set_v0.01"

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  kept "$exp/corpus" || do_ mynah prepare speech_commands "$corpus" "$exp/corpus" "${handed[@]}"
fi
if run 2 "bench: extract once, probe"; then bench "$exp/corpus" --tasks ks; fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
