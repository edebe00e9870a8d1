"""NeMo archives:

archive.py       a .nemo archive (tar or tar.gz), read where it lies
torch_format.py  the weights in it: torch.save's format, read as data, and written
settings.py      NeMo's settings to ours
recipe.py        our settings to NeMo's
checkpoint.py    a whole .nemo file, in and out
"""
