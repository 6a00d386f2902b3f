"""`python -m hwr_export` is `hwr-export`."""

from hwr_export.cli import main

if __name__ == "__main__":
    main()
