"""The `simile` command, which is also `python -m services`."""

from __future__ import annotations

import sys

from services.shared.signals import end_command_on_signals


def main() -> None:
    """Answer signals, then import and run the command."""
    end_command_on_signals(sys.argv[1:])
    from services.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
