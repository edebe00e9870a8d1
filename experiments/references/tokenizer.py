"""Makes a SentencePiece model for the reference models, trained on sentences of random words."""

import os
from pathlib import Path

import numpy as np


def training_text(sentences: int = 3000) -> list[str]:
    """Makes sentences of random words, cased and punctuated, the same each time."""
    rng = np.random.default_rng(0)
    onsets = ["", *"bcdfghjklmnprstvwyz", "ch", "sh", "th", "tr", "st", "gr", "pl"]
    vowels, codas = ["a", "e", "i", "o", "u", "ai", "ee", "ou"], ["", "", "n", "r", "s", "t", "nd"]
    syllables = [onset + vowel + coda for onset in onsets for vowel in vowels for coda in codas]
    words = ["".join(rng.choice(syllables, count)) for count in rng.integers(1, 4, 2500)] + ["I'm", "don't", "it's"]
    lines = []
    for length in rng.integers(4, 12, sentences):
        sentence = " ".join(rng.choice(words, length))
        lines.append(sentence.capitalize() + str(rng.choice([".", "?", "!", ", and so on."])))
    return lines


def train_tokenizer(directory: str | Path, pieces: int) -> int:
    """Writes tokenizer.model and vocab.txt in NeMo's form; returns the number of pieces."""
    import sentencepiece

    prefix = str(Path(directory) / "tokenizer")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(training_text()),
        model_prefix=prefix,
        vocab_size=pieces,
        model_type="bpe",
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        normalization_rule_name="identity",  # another rule's table would be the largest part of the file
        num_threads=1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")
    vocabulary = [processor.id_to_piece(i) + "\n" for i in range(processor.get_piece_size())]
    (Path(directory) / "vocab.txt").write_text("".join(vocabulary))
    os.remove(prefix + ".vocab")
    return processor.get_piece_size()
