"""A user's model taken apart: every distinct node a case, on the values that reach it in a run.

`inputs` draws what the model is fed, `nodes` makes a model of one node, `walk` runs the graph node by node by the
oracles and keeps the distinct ones, bodies of control flow and functions included; `case` judges them.
"""
