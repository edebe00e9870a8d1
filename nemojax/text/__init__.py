"""Labels and text:

tokenizer.py   labels to text and back, whole and incrementally
transcript.py  text, labels and words with their emission times
words.py       the words of labels, with their times and confidences
subtitles.py   words to cues
formats.py     transcripts as subtitles and time-marked words
phrases.py     expected phrases as labels, and files of them
inverse.py     numbers, dates and the like as people write them
json_lines.py  JSON lines that any encoding can hold
"""
