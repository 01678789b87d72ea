"""Measurements. Each module runs by itself; `bench/README.md` says how and what was measured."""
