#!/usr/bin/env bash
# Shows fine-tuning: the small model learns a new speaker, and is scored before and after on recordings that it was not
# trained on.
#
#   experiments/recipes/fine_tune.sh SPEECH OUT
#
# SPEECH has train/ljtext_pm.jsonl and its tar: 18 minutes of one voice, left out of the small model's training. Every
# seventh recording is kept for scoring, the others are trained on. It needs pip install '.[train,experiments]'.
set -euo pipefail
speech=$(realpath "$1") out=$(realpath -m "$2")
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}

mkdir -p "$out"
awk 'NR % 7 != 0' "$speech/train/ljtext_pm.jsonl" > "$out/taught.jsonl"
awk 'NR % 7 == 0' "$speech/train/ljtext_pm.jsonl" > "$out/kept.jsonl"
ln -sf "$speech/train/ljtext_pm.tar" "$out/taught.tar"
ln -sf "$speech/train/ljtext_pm.tar" "$out/kept.tar"

# the last step is scored; the dev set chooses no checkpoint
$python -m experiments train small "$out/run" --init nemojax/small --train "$out/taught.jsonl" --dev "$out/kept.jsonl" \
  --steps 300 --evaluate-every 300 --save-every 100 --plan.bucket-count 2 --training.ctc-weight 0.3 \
  --training.learning-rate 0.024 --training.warmup-steps 50 --training.average-decay 0.98 \
  --training.cooldown-from 100 --training.cooldown-steps 200

rm -f "$out/fine_tune.jsonl"
for model in nemojax/small "$out/run/model"; do
  $python -m experiments evaluate "$model" "$out/kept.jsonl" "$speech/dev/grid.jsonl" --stream --output "$out/fine_tune.jsonl"
done
sed -i "s#$speech/#SPEECH/#; s#$out/#OUT/#" "$out/fine_tune.jsonl"  # committed rows name no machine's directories
