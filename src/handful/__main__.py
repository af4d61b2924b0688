"""`python -m handful`: the command line, for what starts Python modules (torchrun)."""

from handful.cli import main

if __name__ == "__main__":
    main()
