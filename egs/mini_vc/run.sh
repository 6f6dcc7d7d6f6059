#!/usr/bin/env bash
# Voice conversion on the embedded corpus: train converters, probe their codes, compare them all (extra [audio]).
# Usage: egs/mini_vc/run.sh [--methods "autoencoder adain vq"] [--steps N] [--pairs N] [--corpus PREPARED] [--exp DIR]
#        [--stage N] [--stop-stage N] [--dry-run true]
exp=exp/mini_vc corpus='' methods="autoencoder adain vq" steps=600 pairs=40
. "$(dirname "$0")/../recipe.sh"
corpus=${corpus:-$exp/corpus}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
runs=()
for method in $methods; do runs+=("$exp/run/$method"); done

if run 1 "prepare: synthesise the corpus, in which speakers say the same sentences"; then
  kept "$corpus" || do_ mynah prepare mini "$corpus"
fi
if run 2 "pretrain: $methods"; then
  for method in $methods; do
    do_ mynah pretrain "vc/$method-tiny" --corpus "$corpus" --out "$exp/run/$method" --steps "$steps" --resume
  done
fi
if run 3 "probe: what codes still say of speaker and sentence"; then
  do_ mynah judge codes "${runs[@]}" --corpus "$corpus" --sentence keyword --out "$exp/codes.json"
fi
if run 4 "judge: converters, methods without training, anchors; audio stays in $exp/audio"; then
  [ "$dry_run" = true ] || [ -e "$exp/methods.json" ] || rm -rf "$exp/audio" # of a run that was cut short
  [ -e "$exp/methods.json" ] || do_ mynah judge methods stats mkl knn "${runs[@]}" --corpus "$corpus" --split all \
    --sentence parallel --pairs "$pairs" --keep "$exp/audio" --out "$exp/methods.json"
fi
if run 5 "next: a page to hear and compare"; then echo "mynah demo --gallery $corpus"; fi
