"""The runs' models, loaded when they are first needed, one at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from slam_potsa.engine.run_directory import MODEL
from slam_potsa.errors import InputError
from slam_potsa.evaluation.report.contents import Run

if TYPE_CHECKING:
    from slam_potsa.engine.decode import Translator

logger = logging.getLogger(__name__)


class Models:
    """Keeps the model that was asked for last: two large ones need not fit beside each other."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._translator: Translator | None = None

    def of(self, run: Run) -> Translator:
        """Raises InputError where the checkpoint or one of the model's parts is missing."""
        from slam_potsa.engine.decode import Translator, load_run

        if self._run is None or self._run.path != run.path:
            if not (run.path / MODEL).is_file():
                raise InputError(f"{run.path}: no {MODEL} there, so there is nothing to look into")
            self._run = self._translator = None
            try:
                self._translator = Translator(load_run(run.path))
            except OSError as error:  # transformers, of a folder that is not there
                raise InputError(f"{run.path}: the model cannot be loaded: {error}") from None
            self._run = run
        return self._translator

    @staticmethod
    def keep(write: Callable[[], None]) -> None:
        """Write a result for the next time; a run directory may be someone else's."""
        try:
            write()
        except OSError as error:
            logger.warning("not kept for the next report: %s", error)
