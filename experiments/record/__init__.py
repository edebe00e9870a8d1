"""Tables and plots of the documents, made from results.

record.py       a command: writes them into the documents
tables.py       the tables
runs.py         questions and commands of the files of rows
draw_cache.py   the animation in the README
guides.py       the guides in nemojax/guides as pages
notebooks.py    a command: runs the notebooks and keeps their outputs
"""
