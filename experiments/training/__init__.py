"""Training runs: train.py is the command, presets.py its settings, loop.py the loop, start.py the first weights, run_directory.py
what a run keeps on disk, export.py a model from it.
"""  # noqa: E501
