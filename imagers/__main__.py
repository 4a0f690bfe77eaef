"""`python -m imagers` is the `imagers` command."""

from imagers.cli.main import main

if __name__ == "__main__":
    main()
