"""``python -m telex``: the same as the command ``telex``."""

from telex.cli.main import main

if __name__ == "__main__":
    main()
