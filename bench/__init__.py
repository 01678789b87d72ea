"""Measurements. `python -m bench` runs them; `docs/performance.md` says what they say."""
