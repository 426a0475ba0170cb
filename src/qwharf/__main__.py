"""Run the command line: ``python -m qwharf``."""

from qwharf.cli.main import main

if __name__ == "__main__":
    main()
