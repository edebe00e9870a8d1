#!/usr/bin/env bash
# The small model that comes with nemojax, from nothing, on two CPU cores, in a little over two hours:
#
#   experiments/small.sh SPEECH OUT
#
# SPEECH has train/ and dev/ with the manifests that are named below. OUT gets synthetic speech, a tokenizer, the run,
# and at the end the model. It may be killed at any moment: the same command goes on. It needs
# pip install '.[train,experiments]', and Debian's espeak-ng flite festival festvox-kallpc16k festvox-us-slt-hts.
set -euo pipefail
speech=$(realpath "$1") out=$(realpath -m "$2")
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
grid=$speech/train/grid.jsonl digits=$speech/train/fsdd.jsonl
read_aloud=("$speech"/train/{librispeech_clean,ljspeech}.jsonl)
synthetic=$out/synthetic/synthetic_train.jsonl

[ -e "$synthetic" ] || $python -m experiments.synthesis "$out/synthetic" --hours 8
[ -e "$out/tokenizer.model" ] || $python -m nemojax.data.train_tokenizer \
  "$synthetic" "$grid" "$digits" "${read_aloud[@]}" --size 256 --output "$out/tokenizer.model"

stage() {
  $python -m experiments.train small "$out/run" --accept-changes --tokenizer "$out/tokenizer.model" \
    --train "$synthetic" "$grid=2" "$digits=3" "${read_aloud[@]}" \
    --dev "$speech"/dev/{grid,fsdd}.jsonl "$out/synthetic/synthetic_dev.jsonl" "$@"
}

# Easy things first: short utterances and small batches; then larger ones, the auxiliary CTC loss, and all lengths; last,
# a lower rate. These are the stages that the model that ships went through, its settings being changed by hand (and the
# digits coming once in the first); as a script they have not been run from beginning to end.
short=(--filters.max-s 4 --plan.batch-frames 420 --plan.bucket-count 4 --waveform.join-probability 0 --training.ctc-weight 0)
larger=(--filters.max-s 4.5 --plan.batch-frames 900 --plan.bucket-count 4)
stage --steps 2396 "${short[@]}" --training.learning-rate 0.1
stage --steps 4765 "${short[@]}" --training.learning-rate 0.16
stage --steps 5368 "${short[@]}" --training.learning-rate 0.4
stage --steps 6616 "${larger[@]}" --training.learning-rate 0.5 --training.ctc-weight 0
stage --steps 9054 "${larger[@]}" --training.learning-rate 0.5 --training.ctc-weight 0.5
stage --steps 11080 --training.learning-rate 0.4 --training.ctc-weight 0.4
stage --steps 12201 --training.learning-rate 0.12 --training.ctc-weight 0.3

[ -e "$out/model" ] || $python -m experiments.export "$out/run" "$out/model" --step 12201 --dtype bfloat16
