"""Labels and text:

tokenizer.py   labels to text and back, whole and incrementally
transcript.py  text, labels and words with their emission times
json_lines.py  JSON lines that any encoding can hold
"""
