"""NeMo archives:

checkpoint.py        a whole .nemo file, in both directions
archive.py           the members of a .nemo archive (a tar, or a compressed one), read without extracting them
settings.py          NeMo's settings to ours
decoding.py          the section for decoding
kinds.py             the kinds of NeMo's models that nemojax does not run
recipe.py            our settings to NeMo's
language_model.py    n-gram language models, which are archives of arrays
torch_format.py      the weights: torch.save's format, a zip file, read and written
torch_old_format.py  the same from before torch 1.6, read only
torch_pickle.py      the description of the tensors in both: a pickle, parsed as data, and written
"""

from convert.nemo.checkpoint import read, write
from convert.nemo.language_model import read_language_model

__all__ = ["read", "read_language_model", "write"]
