"""Files, pipes and arrays to mono samples at 16 kHz, in reading order:

source.py    opens any input; gives blocks of mono samples at the model's rate
decoders.py  decodes a file, a pipe or an array in blocks
headers.py   checks what a file's header promises
manifest.py  NeMo manifests: one recording a line
"""
