"""Measurements. `python -m bench` runs them; `bench/README.md` says what each one measures."""
