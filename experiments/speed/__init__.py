"""Speed: what a step costs and where its time goes (growth.py, profile.py, trace.py, roofline.py), how many streams are served
(streams.py, engine_overhead.py), and training's loss and data (loss.py, data.py).
"""  # noqa: E501
