#!/usr/bin/env bash
# The small model that comes with nemojax, from nothing, on two CPU cores, in about four hours:
#
#   experiments/small.sh SPEECH OUT
#
# SPEECH has train/ and dev/ with the manifests that are named below. OUT gets synthetic speech, a tokenizer, the runs,
# and at the end the model. It may be killed at any moment: the same command goes on. It needs 2 GB, and
# pip install '.[train,experiments]', and Debian's espeak-ng flite festival festvox-kallpc16k festvox-us-slt-hts.
set -euo pipefail
speech=$(realpath "$1") out=$(realpath -m "$2")
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
grid=$speech/train/grid.jsonl digits=$speech/train/fsdd.jsonl
read_aloud=("$speech"/train/{librispeech_clean,ljspeech}.jsonl)

synthesise() {  # NAME ARGUMENTS...
  [ -e "$out/$1/synthetic_train.jsonl" ] || $python -m experiments.synthesis "$out/$1" "${@:2}"
}
synthesise synthetic --hours 8
synthesise more --hours 8 --seed 1 --dev 0 --new-voice 0 --format flac
# festival takes most of the time that synthesis takes
synthesise most --hours 16 --seed 2 --dev 0 --new-voice 0 --format flac --programs espeak-ng flite

[ -e "$out/tokenizer.model" ] || $python -m nemojax.data.train_tokenizer \
  "$out/synthetic/synthetic_train.jsonl" "$grid" "$digits" "${read_aloud[@]}" --size 256 --output "$out/tokenizer.model"

stage() {  # RUN ARGUMENTS...
  $python -m experiments.train small "$out/$1" --accept-changes \
    --dev "$speech"/dev/{grid,fsdd}.jsonl "$out/synthetic/synthetic_dev.jsonl" "${@:2}"
}

# Easy things first: short utterances and small batches; then larger ones, the auxiliary CTC loss, and all lengths; then
# a lower rate. These are the stages that the model that ships went through, its settings being changed by hand (and the
# digits coming once in the first); as a script they have not been run from beginning to end.
first() {
  stage first --tokenizer "$out/tokenizer.model" \
    --train "$out/synthetic/synthetic_train.jsonl" "$grid=2" "$digits=3" "${read_aloud[@]}" "$@"
}
short=(--filters.max-s 4 --plan.batch-frames 420 --plan.bucket-count 4 --waveform.join-probability 0 --training.ctc-weight 0)
larger=(--filters.max-s 4.5 --plan.batch-frames 900 --plan.bucket-count 4)
first --steps 2396 "${short[@]}" --training.learning-rate 0.1
first --steps 4765 "${short[@]}" --training.learning-rate 0.16
first --steps 5368 "${short[@]}" --training.learning-rate 0.4
first --steps 6616 "${larger[@]}" --training.learning-rate 0.5 --training.ctc-weight 0
first --steps 9054 "${larger[@]}" --training.learning-rate 0.5 --training.ctc-weight 0.5
first --steps 11080 --training.learning-rate 0.4 --training.ctc-weight 0.4
first --steps 12201 --training.learning-rate 0.12 --training.ctc-weight 0.3
[ -e "$out/between" ] || $python -m experiments.export "$out/first" "$out/between" --step 12201 --dtype bfloat16

# By then it knew the eight hours better (10 % of words wrong) than new sentences by the same voices (18 %): so it goes on
# with 24 hours of others.
second() {
  stage second --init "$out/between" --train "$out"/{more,most}/synthetic_train.jsonl "$grid=5" "$digits=8" \
    "${read_aloud[0]}=2" "${read_aloud[1]}=3" --plan.bucket-count 8 --training.ctc-weight 0.3 "$@"
}
second --steps STEP1 --training.learning-rate 0.25 --training.warmup-steps 1500
second --steps STEP2 --training.learning-rate RATE2 --training.warmup-steps 1500

[ -e "$out/model" ] || $python -m experiments.export "$out/second" "$out/model" --step STEP2 --dtype bfloat16
