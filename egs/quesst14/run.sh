#!/usr/bin/env bash
# QUESST 2014: query by example, nothing is trained.
# Usage: egs/quesst14/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
exp=exp/quesst14 corpus='' models=fbank protocol=fixed device=cpu prepare=''
. "$(dirname "$0")/../recipe.sh"
needs corpus "the folder quesst14Database"

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  kept "$exp/corpus" || do_ mynah prepare quesst14 "$corpus" "$exp/corpus" "${handed[@]}"
fi
if run 2 "bench: extract once, probe"; then bench "$exp/corpus" --tasks qbe; fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
