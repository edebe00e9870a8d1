"""Accuracy of a model.

evaluate.py       a command: WER and CER at each look-ahead
word_times.py     a command: how long after its sound the model emits a word
judge.py          a command: all of it for several models, of nemojax, NeMo and transformers; errors by word
contestants.py    the models that judge compares
word_edits.py     errors listed by word
streamed.py       a part of a set streamed: equal texts, delays of words, speed
study.py          a command: what accuracy depends on, one thing at a time
conditions.py     the conditions and studies
scoring.py        recordings to scored utterances
listening.py      a recording streamed under a condition, with the delay of each word
report.py         rates, table and plot of evaluate
study_report.py   table and plot of study
"""
