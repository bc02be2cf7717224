"""The composition of params.yaml, without the run that follows it in `dvc exp run -S`."""

# A program, whose arguments are the settings
COMPOSE = """
import sys
from pathlib import Path
from dvc.utils.hydra import compose_and_dump
config = str(Path.cwd() / "conf")
compose_and_dump("params.yaml", config, None, "compose", config, sys.argv[1:])
"""
