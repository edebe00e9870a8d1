"""Hugging Face checkpoints:

safetensors_format.py  the weights, read and written
settings.py            Hugging Face's settings to ours, and back
tokenizer_json.py      a SentencePiece model to tokenizer.json, and back
checkpoint.py          a whole directory, in and out
"""
