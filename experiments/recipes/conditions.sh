#!/usr/bin/env bash
# Measures models on recordings with pauses, noise, other levels, and telephone lines: held-out speech of kinds that the
# small model was trained on.
#
#   experiments/recipes/conditions.sh SPEECH OUT MODEL...
#
# SPEECH has dev/ with the manifests that are named below; OUT gets recordings and conditions.jsonl, to which the rows of
# each model are appended. It needs pip install '.[experiments]', and Debian's espeak-ng flite festival festvox-kallpc16k
# festvox-us-slt-hts.
set -euo pipefail
speech=$(realpath "$1") out=$(realpath -m "$2")
models=()
for model in "${@:3}"; do models+=("$(realpath --no-symlinks --relative-base="$(dirname "$0")/../.." "$model")"); done
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}

mkdir -p "$out"
[ -e "$out/synthetic/synthetic_dev.jsonl" ] || $python -m experiments synthesis "$out/synthetic" --hours 0

# pairs of neighbors: a digit and another one by another speaker; a sentence of GRID and a digit
tar -xf "$speech/dev/grid.tar" -C "$out"
tar -xf "$speech/dev/fsdd.tar" -C "$out"
shuf --random-source="$speech/dev/fsdd.jsonl" "$speech/dev/fsdd.jsonl" > "$out/digits_in_any_order.jsonl"
paste -d '\n' "$speech/dev/grid.jsonl" <(head -50 "$out/digits_in_any_order.jsonl") > "$out/grid_and_digits.jsonl"

for model in "${models[@]}"; do
  for study in noise telephone level; do
    $python -m experiments compare_accuracy "$model" "$speech"/dev/{grid,fsdd}.jsonl \
      "$out/synthetic/synthetic_dev.jsonl" --limit 120 --study "$study" --output "$out/conditions.jsonl"
  done
  $python -m experiments compare_accuracy "$model" "$out"/{digits_in_any_order,grid_and_digits}.jsonl \
    "$out/synthetic/synthetic_dev.jsonl" --limit 120 --study pause --output "$out/conditions.jsonl"
done
sed -i "s#$speech/#SPEECH/#; s#$out/#OUT/#" "$out/conditions.jsonl"  # committed rows name no machine's directories
