"""The parts that all experiments share.

experiment.py    an experiment: settings, what it measures, its table and plot; its whole command
command.py       a command line, from arguments to exit code
settings.py      settings files
checks.py        checks of settings
rows.py          results as JSON lines
output.py        tables, plots and files
machine.py       hardware, versions and commit, for each row
"""
