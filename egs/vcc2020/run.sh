#!/usr/bin/env bash
# VCC 2020, task 1, as SUPERB-SG scores it: prepare, a converter to each target on a frozen upstream, convert, judge.
# Usage: egs/vcc2020/run.sh --corpus DIR [--upstream SPEC] [--variant taco2_ar] [--vocoder NAME|DIR] [--asr HEAD]
#        [--asv HEAD] [--protocol superb|fixed] [--device cpu] [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
#        [--list LIST.tsv]: conversions made elsewhere; stage 4 judges these
exp=exp/vcc2020 corpus='' list='' asr='' asv='' protocol=fixed device=cpu prepare=''
upstream=fbank variant=taco2_ar vocoder=''
. "$(dirname "$0")/../recipe.sh"
needs corpus "the folder that the zip files of VCC2020-database unpack to"
targets=(TEF1 TEF2 TEM1 TEM2)
judges=(--protocol "$protocol" --device "$device" --real "$exp/corpus" ${asr:+--asr "$asr"} ${asv:+--asv "$asv"})

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  kept "$exp/corpus" || do_ mynah prepare vcc2020 "$corpus" "$exp/corpus" "${handed[@]}"
  do_ mynah pairs "$exp/corpus" "$exp/lists" --sources role=source --references role=reference \
    --voices role=target --sentence parallel
fi
[ -n "$list" ] || for target in "${targets[@]}"; do
  if run 2 "pretrain: a converter to $target"; then
    do_ mynah pretrain "vc/$variant" --teacher "$upstream" --speaker "$target" --corpus "$exp/corpus" \
      --out "$exp/run/$target" --device "$device" --resume; fi
  if run 3 "convert: to $target"; then
    do_ mynah convert --model "$exp/run/$target" --list "$exp/lists/convert-$target.tsv" ${vocoder:+--vocoder "$vocoder"}; fi
done
if run 4 "judge"; then do_ mynah judge vc "${list:-$exp/lists/judge.tsv}" "${judges[@]}" --out "$exp/scores.json"; fi
