"""Which kernel runs where: the registry of backends, placement, fusion, memory, templates and the session.

It imports the backends' contract and the operator set, never the public face.
"""
