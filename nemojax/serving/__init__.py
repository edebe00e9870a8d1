"""Many live streams on one device:

engine.py         takes a step for all streams at once
engines.py        an engine for each of several look-aheads
schedule.py       when a step begins, and whose chunks it takes
pending_steps.py  the samples that wait: chunks in the memory that steps read, and incomplete ones
packets.py        packets of many streams at once
sized_batch.py    the batch, as large as the open streams need
step_text.py      a step's labels become text
slots.py          which slots are free, and who waits for one
live_stream.py    one of its streams, as its caller sees it
step_report.py    what is reported about a step
"""
