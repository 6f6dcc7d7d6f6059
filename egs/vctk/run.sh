#!/usr/bin/env bash
# VCTK: voice converters of several kinds, judged on speakers that none of them has heard.
# Usage: egs/vctk/run.sh --corpus VCTK-Corpus-0.92 [--methods "adain vq ..."] [--teacher SPEC] [--vocoder NAME|DIR]
#        [--asr HEAD] [--asv HEAD] [--pairs N] [--device cpu] [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
exp=exp/vctk corpus='' methods="autoencoder adversarial adain vq" teacher='' vocoder='' asr='' asv=''
pairs=100 device=cpu prepare=''
. "$(dirname "$0")/../recipe.sh"
needs corpus "VCTK-Corpus-0.92 as it is unpacked"
runs=()
for method in $methods; do runs+=("$exp/run/${method//\//-}"); done

if run 1 "prepare: speakers of both genders are held out"; then
  kept "$exp/corpus" || do_ mynah prepare vctk "$corpus" "$exp/corpus" "${handed[@]}"
fi
if run 2 "pretrain: $methods"; then
  for method in $methods; do
    do_ mynah pretrain "vc/$method" --corpus "$exp/corpus" --out "$exp/run/${method//\//-}" --device "$device" \
      --resume ${teacher:+--teacher "$teacher"}
  done
fi
if run 3 "judge: against each other, methods without training, and what bounds them"; then
  do_ mynah judge methods stats mkl knn "${runs[@]}" --corpus "$exp/corpus" --split test --sentence text \
    --pairs "$pairs" --out "$exp/methods.json" ${vocoder:+--vocoder "$vocoder"} ${asr:+--asr "$asr"} ${asv:+--asv "$asv"}
fi
