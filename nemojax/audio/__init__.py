"""Files, pipes and arrays to mono samples at 16 kHz, in reading order:

source.py    opens any input; gives blocks of mono samples at the model's rate
decoders.py  decodes a file, a pipe or an array in blocks
headers.py   checks the sizes and formats in a file's header
window.py    a part of an open file, as a file
mp3.py       mp3 files that do not give their length
manifest.py  manifests: one recording per line
  shard_names.py     names of several manifests at once
  manifest_entry.py  one line, with NeMo's keys, to a recording
  lhotse_cut.py      one line that is a Lhotse cut
  tar_shards.py      the tar files of a manifest, and which has the audio of a line
  tar_index.py       the members of a tar file
"""
