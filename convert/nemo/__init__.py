"""NeMo archives:

checkpoint.py    a whole .nemo file, in both directions
archive.py       the members of a .nemo archive (tar or tar.gz), read without extracting them
settings.py      NeMo's settings to ours
recipe.py        our settings to NeMo's
torch_format.py  the weights: torch.save's format, a zip file, read and written
torch_pickle.py  the description of the tensors in it: a pickle, parsed as data, and written
"""

from convert.nemo.checkpoint import read, write

__all__ = ["read", "write"]
