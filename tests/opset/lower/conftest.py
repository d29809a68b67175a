"""Makes the numpy interpreter of traces, ``evaluate``, importable from here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
