"""``python -m liteflow.worker`` is the `liteflow` command."""

from liteflow.worker.cli import main

main(prog_name="liteflow")
