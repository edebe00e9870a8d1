#!/usr/bin/env bash
# Measures what the small model's accuracy depends on: every study of `python -m experiments compare_accuracy`, on speech
# that it was not trained on, of kinds that it recognizes in part (on other kinds every condition is equally wrong).
#
#   experiments/recipes/ablations.sh SPEECH OUT
#
# SPEECH has dev/ with the manifests that are named below; OUT gets synthetic speech and ablations.jsonl. It needs
# pip install '.[experiments]', and Debian's espeak-ng flite festival festvox-kallpc16k festvox-us-slt-hts.
set -euo pipefail
speech=$(realpath "$1") out=$(realpath -m "$2")
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}

mkdir -p "$out"
[ -e "$out/synthetic/synthetic_dev.jsonl" ] || $python -m experiments synthesis "$out/synthetic" --hours 0 --new-voice 0

rm -f "$out/ablations.jsonl"
for study in lookahead left-context chunk dtype noise cold-start long-form; do
  $python -m experiments compare_accuracy nemojax/small "$speech"/dev/{grid,fsdd,ljspeech}.jsonl \
    "$out/synthetic/synthetic_dev.jsonl" --study "$study" --output "$out/ablations.jsonl"
done
sed -i "s#$speech/#SPEECH/#; s#$out/#OUT/#" "$out/ablations.jsonl"  # committed rows name no machine's directories
