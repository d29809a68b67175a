"""Level L2: each tuned kernel against the same backend's lowering, and against an oracle.

`twins` makes two devices of one, of which one knows no tuned kernels and the other tells which it built; `sized` has
models of the sizes that networks have, which is where kernels are tuned for; `case` puts them to each other.
"""
