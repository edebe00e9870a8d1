"""Converts checkpoints of other toolkits to native ones and back, without torch and without running code from them.

__main__.py   the command line
nemo/         NeMo archives
huggingface/  Hugging Face checkpoints
hub.py        reads from the model hub and writes to it
push.py       a repository of the hub; model_card.py writes its README.md
stablehlo.py  exports the streaming step, to run without nemojax; stablehlo_example.py runs it
onnx_step.py  exports it as an ONNX graph; onnx_example.py runs it
names.py      one table: our names of parameters, NeMo's, Hugging Face's, and the layout of each tensor
source.py     a checkpoint as read: every tensor matched to one of our parameters
sections.py   settings files, read strictly: every entry is used, known to be harmless, or an error
pieces.py     the pieces of a tokenizer
files.py      read-only parts of files
output.py     output that is written completely or not at all
errors.py     the one error, and how messages quote what a file holds
"""
