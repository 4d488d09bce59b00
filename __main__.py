"""`python -m lcpu` is the `lcpu` command."""

from .cli.start import main

if __name__ == "__main__":
    main()
