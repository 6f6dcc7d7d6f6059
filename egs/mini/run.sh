#!/usr/bin/env bash
# The main job on the embedded corpus: prepare, pretrain, freeze, extract once, probe, report.
# Usage: egs/mini/run.sh [--stage N] [--stop-stage N] [--exp DIR] [--steps N] [--probe-steps N] [--dry-run true]
exp=exp/mini steps=500 probe_steps=300
. "$(dirname "$0")/../recipe.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # three small models side by side beat one on all cores
models=(apc mockingjay wav2vec2)

if run 1 "prepare: synthesise the corpus"; then do_ mynah prepare mini "$exp/corpus"; fi
if run 2 "pretrain: ${models[*]}, side by side; progress in $exp/pretrain/*.log"; then
  do_ mkdir -p "$exp/pretrain" && jobs=()
  for model in "${models[@]}"; do
    train=(mynah pretrain "$model/tiny" --corpus "$exp/corpus" --out "$exp/pretrain/$model" --steps "$steps" --resume)
    if [ "$dry_run" = true ]; then do_ "${train[@]}" && continue; fi
    "${train[@]}" > "$exp/pretrain/$model.log" 2>&1 & jobs+=("$!")
  done
  for job in "${jobs[@]}"; do wait "$job" || { tail -n 5 "$exp"/pretrain/*.log; exit 1; }; done
fi
if run 3 "bench: extract once, probe every task"; then
  do_ mynah bench fbank "${models[@]/#/$exp/pretrain/}" --tasks ks sid er pr \
    --corpus "$exp/corpus" --out "$exp/results" --store "$exp/store" --steps "$probe_steps"
fi
if run 4 "report: table and page"; then
  do_ mynah table "$exp/results"
  do_ mynah report "$exp/results" --out "$exp/report.html" && echo "== open $exp/report.html"
fi
