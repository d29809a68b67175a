"""What ``omniop demo`` runs: trained networks on a picture or a sound, with all that they need around them.

Pictures are read by PP-OCR's three networks (`ocr`), speech is found by Silero's (`speech`), notes by Spotify's
basic-pitch (`pitch`). Each network comes in a wheel of its own (`models`), of which nothing is imported.

Importing this package imports nothing else. Its modules need the extra ``demo``: Pillow and SciPy.
"""
