#!/usr/bin/env bash
# CoVoST 2, English to German: speech translation.
# Usage: egs/covost2/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
exp=exp/covost2 corpus='' models=fbank protocol=fixed device=cpu prepare=''
. "$(dirname "$0")/../recipe.sh"
needs corpus "the English folder of Common Voice 4, with covost_v2.en_de.tsv in it"

if run 1 "prepare: every file is decoded and checked"; then
  kept "$exp/corpus" || do_ mynah prepare covost2 "$corpus" "$exp/corpus" "${handed[@]}"
fi
if run 2 "bench: extract once, probe"; then bench "$exp/corpus" --tasks st; fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
