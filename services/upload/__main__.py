"""The upload service as a process of its own: `python -m services.upload`."""

from __future__ import annotations

from services.shared.signals import end_on_signals


def main() -> None:
    """Answer signals, then import the service and run it."""
    end_on_signals()
    from services.upload.process import main as run

    run()


if __name__ == "__main__":
    main()
