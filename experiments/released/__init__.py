"""The released weights against the published figures, for whoever has them:

run.py        the command
known.py      what is known of the releases: sizes, checksums, published accuracy and speed
identity.py   the files of a model against those of the release
sets.py       LibriSpeech as distributed, and manifests, as sets with published figures
report.py     verdicts, tables and the page
"""
