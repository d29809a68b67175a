"""Code generation that backends share: `schedule`, then `linearise` to structured SSA, then a dialect prints it."""
