"""What all experiments share: command.py the command line, settings.py settings from JSON, output.py tables and files,
machine.py what a row says of the machine.
"""
