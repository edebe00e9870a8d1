"""Checkpoints of other toolkits to nemojax's own form, and back; without torch, and without running what is in them.

__main__.py   the command line
nemo/         NeMo archives
huggingface/  Hugging Face checkpoints
names.py      one table: our names, NeMo's, Hugging Face's, and how each tensor is laid out
sections.py   sections of a settings file, every entry accounted for
pieces.py     the pieces of a tokenizer
files.py      files as windows to read and to seek in
source.py     what was read, every tensor accounted for
output.py     what is written, whole or not at all
errors.py     what a user is told
"""
