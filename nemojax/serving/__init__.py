"""Many live streams on one device:

engine.py       takes a step for all streams at once
live_stream.py  one of its streams, as its caller sees it
"""
