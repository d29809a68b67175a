"""The lowerings: each operator written in primitives, one module a family. They are traced and never see data."""
