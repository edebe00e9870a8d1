"""Drivers of the step, from audio to text:

stream_batch.py  the compiled step and the state of a batch of streams
hypothesis.py    labels, times and text of one stream
stream.py        one live stream
offline.py       how recordings lie in a batch
recognizer.py    loads a checkpoint; transcribes recordings
bulk.py          transcribes a manifest into a directory; an interrupted job resumes
"""
