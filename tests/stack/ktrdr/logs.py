"""KTRDR's log lines: coloured on stdout and, where KTRDR_LOG_DIR is set, once more in ktrdr.log."""

import logging
import os
import sys
from pathlib import Path

COLOURS = {"INFO": "\033[92m", "WARNING": "\033[93m", "ERROR": "\033[91m"}


class Coloured(logging.Formatter):
    def format(self, record):
        colour = COLOURS.get(record.levelname, "")
        stamp = self.formatTime(record)
        text = f"{stamp} | {colour}{record.levelname} \033[0m | {record.name} | {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def setup():
    handlers = [logging.StreamHandler(sys.stdout)]
    directory = os.environ.get("KTRDR_LOG_DIR")
    if directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(Path(directory) / "ktrdr.log"))
    for handler in handlers:
        handler.setFormatter(Coloured())
    # httpx logs each of its requests at INFO; KTRDR silences it as well.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, handlers=handlers)
