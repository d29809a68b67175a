"""Level L0: a device asked for what the contract says, and not by way of a model.

`bench` runs one piece of work on a device, `table` has the checks; each other module is a family of them: memory,
arithmetic at the edges, how accurate functions are, loops, and prims that a device takes whole.
"""
