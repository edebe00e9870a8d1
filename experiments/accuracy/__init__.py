"""Accuracy of a model.

evaluate.py        a command: WER and CER at each look-ahead
judge.py           a command: several models, of nemojax, NeMo and transformers, on one's own speech
contestants.py     the models that judge compares
word_edits.py      errors listed by word
streamed.py        a part of a set streamed: equal texts, delays of words, speed
fine_tuned.py      a command: a model before and after fine-tuning
word_times.py      a command: how long after its sound the model emits a word
utterance_ends.py  a command: how soon the end of an utterance is decided, and how often wrongly
confidence.py      a command: how well the confidence of a word tells whether it is right
study.py           a command: what accuracy depends on, one thing at a time
conditions.py      the conditions and studies
scoring.py         recordings to scored utterances
key_words.py       recall and false alarms of key words
utterances.py      recordings of a study, with the ends of their words
listening.py       a recording streamed under a condition, with the delay of each word
report.py          rates, table and plot of evaluate
study_report.py    table and plot of study
search_report.py   tables and plot of accuracy over beam width, weight of the language model, and boost
"""
