"""What operators mean: importing models, schemas and versions, shapes, primitives, the kernel IR and the lowerings.

The lowest room: it imports no other room and knows no device.
"""
