"""OpenCL: every platform and device that the machine has.

``pip install omniop[opencl]`` runs on the drivers that are installed, ``omniop[opencl-cpu]`` brings one for the CPU.
"""

from omniop.backends.opencl.backend import OpenCLBackend

BACKEND = OpenCLBackend()
