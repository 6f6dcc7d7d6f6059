#!/usr/bin/env bash
# LibriSpeech as SUPERB uses it: speech recognition, and with a lexicon phoneme recognition too.
# Usage: egs/librispeech_asr/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--lexicon FILE] [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
exp=exp/librispeech_asr corpus='' models=fbank protocol=fixed device=cpu prepare='' lexicon=''
. "$(dirname "$0")/../recipe.sh"
needs corpus "the folder LibriSpeech that openslr.org/12 unpacks to"

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  kept "$exp/corpus" || do_ mynah prepare librispeech "$corpus" "$exp/corpus" "${handed[@]}"
fi
if run 2 "bench: extract once, probe"; then
  if [ -n "$lexicon" ]; then bench "$exp/corpus" --tasks pr asr --lexicon "$lexicon"; else bench "$exp/corpus" --tasks asr; fi
fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
