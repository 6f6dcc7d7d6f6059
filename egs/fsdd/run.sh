#!/usr/bin/env bash
# The Free Spoken Digit Dataset: what pretraining on four speakers buys for digits of a fifth and sixth.
# Usage: egs/fsdd/run.sh --corpus free-spoken-digit-dataset [--models "apc/tiny ..."] [--seeds "0 1 2"]
#        [--exp DIR] [--jobs N] [--stage N] [--stop-stage N] [--dry-run true]
exp=exp/fsdd corpus='' models="apc/tiny mockingjay/tiny hubert/tiny best_rq/tiny" seeds="0 1 2" jobs=2
. "$(dirname "$0")/../recipe.sh"
needs corpus "a checkout of Jakobovski/free-spoken-digit-dataset"
read -ra chosen <<< "$models" && read -ra numbers <<< "$seeds"

if run 1 "prepare: digit and speaker are in the file names"; then
  kept "$exp/corpus" || do_ mynah prepare folder "$corpus/recordings" "$exp/corpus" \
    --from-path 'keyword=(\d)_[a-z]+_\d+\.wav$' --from-path 'speaker=\d_([a-z]+)_\d+\.wav$' \
    --held-out speaker=theo,yweweler --dev-held-out speaker=nicolas
fi
if run 2 "pretrain, probe, compare with untrained models and filter banks"; then
  do_ mynah gain "${chosen[@]}" --corpus "$exp/corpus" --probe "ks:$exp/corpus:500" \
    --seeds "${numbers[@]}" --out "$exp/gain" --jobs "$jobs"
fi
