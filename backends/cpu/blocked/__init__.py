"""Convolutional networks in blocked layouts: channels in blocks of a vector, which lie side by side for each pixel.

NCHW16c where vectors hold 16 float32. What the last block of channels holds beyond the channels is undefined: whoever
sums over channels stops at the last one.
"""
