"""`python -m lcpu` is the `lcpu` command."""

from .cli.main import main

if __name__ == "__main__":
    main()
