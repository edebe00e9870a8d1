"""Accuracy: evaluate.py scores a model, study.py studies what accuracy depends on, under conditions.py; report.py and
study_report.py make their tables and plots; listening.py streams a recording.
"""
