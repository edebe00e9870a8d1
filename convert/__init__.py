"""Checkpoints of other toolkits to nemojax's own form, and back; without torch, and without running what is in them.

archive.py               a .nemo archive (tar or tar.gz), read where it lies
torch_format.py          the weights in it: torch.save's format, read as data, and written
safetensors_format.py    the weights of a Hugging Face checkpoint, read and written
names.py                 one table: our names, NeMo's, Hugging Face's, and how each tensor is laid out
settings.py              what a settings file may say
nemo_settings.py         NeMo's settings to ours; nemo_recipe.py: ours to NeMo's
huggingface_settings.py  Hugging Face's settings to ours, and back
tokenizer_json.py        a SentencePiece model to tokenizer.json, and back
source.py                what was read, every tensor accounted for
output.py                what is written, whole or not at all
nemo.py                  a whole .nemo file, in and out
huggingface.py           a whole Hugging Face directory, in and out
__main__.py              the command line

references/ is apart from these: models of NeMo and transformers to compare with, which need both.
"""
