"""The devices: the contract that each backend fulfils, the code generators they share, and the backends themselves.

A backend imports the operator set, never the dispatcher: it says what it can run, and the dispatcher decides.
"""
