#!/usr/bin/env bash
# Measures what a beam, a language model and a list of key words change, on held-out speech.
#
#   experiments/recipes/search.sh SPEECH OUT [MODEL]
#
# SPEECH has train/ and dev/ with the manifests that are named below; OUT gets recordings, language models, lists and
# search_accuracy.jsonl, to which the rows are appended. A set's language model is estimated from texts of its training
# part alone: for synthetic speech 20,000 random sentences, none of which is held out; for LJ Speech and LibriSpeech the
# texts of both. Key words are what a user would list: the names in the texts to come, which are the words with a capital
# that do not begin a sentence; for GRID, whose texts have no capitals, the letters. GRID comes through a telephone line
# and in white noise, and digits in noise, for otherwise nearly every word is right. It needs
# pip install '.[experiments]', and Debian's espeak-ng flite festival festvox-kallpc16k festvox-us-slt-hts.
set -euo pipefail
speech=$(realpath "$1") out=$(realpath -m "$2")
model=$(realpath --no-symlinks --relative-base="$(dirname "$0")/../.." "${3:-$(dirname "$0")/../../nemojax/small}")
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}

mkdir -p "$out"
[ -e "$out/synthetic/synthetic_new_voice.jsonl" ] || $python -m experiments synthesis "$out/synthetic" --hours 0

$python - "$speech" "$out" << 'PROGRAM'
import json, random, re, sys
from itertools import islice
from pathlib import Path

from experiments.synthesis.sentences import sentences

speech, out = map(Path, sys.argv[1:])
texts = lambda path: [json.loads(line)["text"] for line in path.open()]
write = lambda name, lines: (out / name).write_text("".join(f"{line}\n" for line in lines))
corpora = {"grid": ["grid"], "fsdd": ["fsdd"], "read_aloud": ["librispeech_clean", "ljspeech"]}
for name, manifests in corpora.items():
    write(f"{name}.txt", [text for manifest in manifests for text in texts(speech / f"train/{manifest}.jsonl")])
write("synthetic.txt", islice(sentences(random.Random(1), kept_from_training=False), 20_000))

def names(path):
    later = [word for text in texts(path) for part in re.split("(?<=[.?!]) ", text) for word in part.split()[1:]]
    words = [re.sub(r"('s)?\W*$", "", word) for word in later]
    return sorted({word for word in words if word[:1].isupper() and len(word) > 1 and not word.startswith("I'")})

write("ljspeech_names.txt", names(speech / "dev/ljspeech.jsonl"))
write("synthetic_names.txt", names(out / "synthetic/synthetic_new_voice.jsonl"))
write("letters.txt", "abcdefghijklmnopqrstuvxyz")  # GRID has no w
PROGRAM
for name in grid fsdd read_aloud synthetic; do
  $python -m nemojax.cli lm "$out/$name.txt" "$out/$name.arpa" --model "$model"
done

compare() {  # MANIFEST LIMIT LM KEYWORDS PARTS: KEYWORDS is a file or -, PARTS go with every condition, such as snr=5
  local fixed=("$python" -m experiments compare_accuracy "$model" "$1" --limit "$2" --output "$out/search_accuracy.jsonl")
  [ "$4" = - ] || fixed+=(--phrases "$out/$4")
  "${fixed[@]}" --study beam ${5:+--also "$5"}
  for parts in "${5:-}" "${5:+$5,}beam=4"; do
    "${fixed[@]}" --study lm-weight --lm "$out/$3" ${parts:+--also "$parts"}
    [ "$4" = - ] || "${fixed[@]}" --study boost ${parts:+--also "$parts"}
  done
}
compare "$out/synthetic/synthetic_new_voice.jsonl" 100 synthetic.arpa synthetic_names.txt ""
compare "$speech/dev/grid.jsonl" 50 grid.arpa letters.txt telephone
compare "$speech/dev/grid.jsonl" 50 grid.arpa letters.txt snr=5
compare "$speech/dev/fsdd.jsonl" 120 fsdd.arpa - snr=10
compare "$speech/dev/ljspeech.jsonl" 20 read_aloud.arpa ljspeech_names.txt ""
compare "$speech/dev/librispeech_clean.jsonl" 40 read_aloud.arpa - ""
sed -i "s#$speech/#SPEECH/#g; s#$out/#OUT/#g" "$out/search_accuracy.jsonl"  # committed rows name no machine's directories
