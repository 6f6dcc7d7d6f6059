# shellcheck shell=bash
# What the recipes share. A run.sh gives its options their defaults, sources this, says what it needs and names its
# stages. As in Kaldi's parse_options.sh, --some-name VALUE sets some_name, and an option without a default is unknown.
set -euo pipefail
stage=1 stop_stage=99 dry_run=false

usage() { sed -n '/^# Usage:/,/^[^#]/ { /^#/p; }' "$0" >&2 && exit 2; }

while [ $# -gt 0 ]; do
  name=${1#--} && name=${name//-/_}
  [[ $1 =~ ^--[a-z-]+$ && -n ${!name+known} && $# -gt 1 ]] || usage
  printf -v "$name" %s "$2" && shift 2
done
[[ $stage$stop_stage =~ ^[0-9]+$ ]] || { echo "--stage and --stop-stage want numbers" >&2 && exit 2; }
[[ $dry_run =~ ^(true|false)$ ]] || { echo "--dry-run wants true or false" >&2 && exit 2; }
read -ra handed <<< "${prepare:-}" # options of --prepare, for `mynah prepare`

# needs NAME WHAT: the option NAME must be given
needs() { [ -n "${!1}" ] || { echo "--$1 is needed: $2" >&2 && exit 2; }; }
# run N WHAT: whether stage N is asked for
run() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ] && echo "== stage $1: $2"; }
# do_ COMMAND: run it, or print it as one could type it
do_() {
  local line && printf -v line '%q ' "$@"
  if [ "$dry_run" = true ]; then echo "${line% }"; else "$@"; fi
}
# kept DIR: whether a corpus was prepared there before
kept() { [ -e "$1/corpus.json" ] && echo "== $1 is there already and is kept"; }
# bench CORPUS... --tasks NAME...: the models of --models on tasks, into $exp
bench() {
  local specs && read -ra specs <<< "$models"
  do_ mynah bench "${specs[@]}" --corpus "$@" --out "$exp/results" --store "$exp/store" \
    --protocol "$protocol" --device "$device"
}
