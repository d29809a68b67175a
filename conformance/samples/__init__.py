"""Sample inputs of every operator, by family: what the suite's own cases are drawn from.

`op` has the table and what a sample is, `drawing` how arrays are drawn, `catalogue` finds all; each other module is a
family of operators.
"""
