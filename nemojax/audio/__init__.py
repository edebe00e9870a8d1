"""Files, pipes and arrays to mono samples at 16 kHz, in reading order:

source.py    opens any input; gives blocks of mono samples at the model's rate
decoders.py  decodes a file, a pipe or an array in blocks
headers.py   checks the sizes and formats in a file's header
window.py    a part of an open file, as a file
mp3.py       mp3 files that do not give their length
manifest.py  NeMo manifests: one recording per line
"""
