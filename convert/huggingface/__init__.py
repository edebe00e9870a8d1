"""Hugging Face checkpoints:

checkpoint.py          a whole directory, in both directions
settings.py            Hugging Face's settings to ours, and back
safetensors_file.py    the weights
tokenizer_json.py      tokenizer.json to a SentencePiece model, and back
"""

from convert.huggingface.checkpoint import read, write

__all__ = ["read", "write"]
