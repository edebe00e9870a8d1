"""Files, pipes and arrays to mono samples at 16 kHz, in reading order:

source.py        opens any input; gives blocks of mono samples at the model's rate
inputs.py        what Python programs bring: arrays, bytes, readable objects, samples with their rate
pipes.py         decodes a pipe: wav and raw samples as they arrive
decoders.py      decodes a file in blocks, until its bytes end
formats.py       what data are, by their first bytes
headers.py       the header of a wav, and the real size of its samples
raw.py           samples without a header
mp3.py, ogg.py   frames and pages
ffmpeg.py        formats that only ffmpeg decodes
window.py        a part of an open file, as a file
channels.py      several channels to one
resampler.py     one rate to another
voice_activity.py  skips long silence
stream_input.py  the pieces of one live stream
manifest.py      manifests: one recording per line
  shard_names.py     names of several manifests at once
  manifest_entry.py  one line, with NeMo's keys, to a recording
  lhotse_cut.py      one line that is a Lhotse cut
  tar_shards.py      the tar files of a manifest, and which has the audio of a line
  tar_index.py       the members of a tar file
"""
