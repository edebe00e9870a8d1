"""Drivers of the step, from audio to text:

stream_batch.py      the state of a batch of streams, and the compiled step
chunker.py           cuts the samples of a live stream into chunks
hypothesis.py        labels, times and text of one stream
end_of_utterance.py  where the utterances of a stream end
stream.py            one live stream
stream_graphs.py     the language model and the phrases of streams
language_models.py   files of language models
offline.py           recordings side by side in a batch
recognizer.py        loads a checkpoint; transcribes recordings
results.py           the fields of the result of a line of a manifest
bulk.py              transcribes a manifest into a directory; an interrupted job resumes
exports.py           the results of a job as subtitles and the like
"""
