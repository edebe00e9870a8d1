"""Labels and text:

tokenizer.py   labels to text and back, whole and incrementally
transcript.py  text, labels and words with their emission times
words.py       the words of labels, with their times and confidences
json_lines.py  JSON lines that any encoding can hold
"""
