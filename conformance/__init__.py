"""The conformance suite as a product: cases, oracles, tolerances, the runner and its reports, for any backend.

Its oracles are independent of the lowerings and of the backends that they judge.
"""
