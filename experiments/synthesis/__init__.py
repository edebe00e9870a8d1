"""Synthetic speech to train on: random sentences, spoken by Debian's speech synthesizers.

corpus.py      the command
grammar.py     the forms and words of sentences
sentences.py   random sentences, and which of them are held out from training
voices.py      the voices
programs.py    the synthesizers
"""
