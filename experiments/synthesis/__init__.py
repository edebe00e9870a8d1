"""Synthetic speech to train on: made sentences, spoken by Debian's synthesisers.

A module a concern: grammar.py what sentences are made of, sentences.py the sentences and which of them are held out,
voices.py the voices, programs.py the synthesisers, corpus.py the command.
"""
