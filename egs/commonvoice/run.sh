#!/usr/bin/env bash
# Common Voice 7: recognition of Mexican Spanish, Chinese and Arabic (OOD-ASR).
# Usage: egs/commonvoice/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--languages "es zh-CN ar"] [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
exp=exp/commonvoice corpus='' models=fbank protocol=fixed device=cpu prepare='' languages="es zh-CN ar"
. "$(dirname "$0")/../recipe.sh"
needs corpus "the folder of the release, which holds es, zh-CN and ar"
read -ra spoken <<< "$languages"

if run 1 "prepare: every file is decoded and checked"; then
  for language in "${spoken[@]}"; do
    kept "$exp/$language" ||
      do_ mynah prepare commonvoice "$corpus" "$exp/$language" --variant "$language" "${handed[@]}"
  done
fi
if run 2 "bench: extract once, probe"; then bench "${spoken[@]/#/$exp/}" --tasks ood_asr; fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
