#!/usr/bin/env bash
# Libri2Mix: separation (Libri2Mix/wav16k/min), and diarisation (wav16k/max) where its Kaldi folders are given.
# Usage: egs/librimix/run.sh --corpus DIR [--models "fbank ..."] [--protocol superb|fixed] [--device cpu]
#        [--diarisation DIR] [--tasks "ss sd"] [--exp DIR] [--stage N] [--stop-stage N] [--prepare "OPTIONS"] [--dry-run true]
exp=exp/librimix corpus='' models=fbank protocol=fixed device=cpu prepare='' diarisation='' tasks=''
. "$(dirname "$0")/../recipe.sh"
needs corpus "the folder Libri2Mix that LibriMix generates"
tasks=${tasks:-ss${diarisation:+ sd}}
[[ $tasks != *sd* || -n $diarisation ]] || { echo "sd needs --diarisation: the Kaldi folders of prepare_diarization.py" >&2; exit 2; }

if run 1 "prepare: every file is decoded and checked, sizes are compared with the published ones"; then
  if [[ $tasks == *ss* ]] && ! kept "$exp/ss"; then
    do_ mynah prepare librimix "$corpus" "$exp/ss" --variant ss "${handed[@]}"
  fi
  if [[ $tasks == *sd* ]] && ! kept "$exp/sd"; then
    do_ mynah prepare librimix "$diarisation" "$exp/sd" --variant sd --audio-root "$corpus" "${handed[@]}"
  fi
fi
if run 2 "bench: extract once, probe"; then
  for task in $tasks; do bench "$exp/$task" --tasks "$task"; done
fi
if run 3 "table"; then do_ mynah table "$exp/results"; fi
