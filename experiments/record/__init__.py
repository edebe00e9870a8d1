"""The documents' tables and plots, made from results: record.py is the command, tables.py makes the tables, draw_cache.py the
animation, notebooks.py runs the notebooks.
"""  # noqa: E501
