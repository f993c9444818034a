"""`python -m transferd.worker --fd N`."""

from __future__ import annotations

from transferd.worker.main import main

if __name__ == "__main__":
    main()
