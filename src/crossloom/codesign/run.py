"""The main job: train, quantise, compile, run on every rung, cost, record. Any stage can be interrupted and resumed.

    config = configure("lenet5", "digits", "crimp-isaac")
    result = run(config, "runs/demo")

The stages are done in order and each leaves its result in the run's folder (see `crossloom.codesign.folder`). A
process that stops at any moment leaves whole files only, and the same call goes on behind the last stage that was
finished; training goes on behind the last epoch and evaluation behind the last images that were kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from crossloom.codesign.config import RunConfig
from crossloom.codesign.folder import RunFolder, locked
from crossloom.codesign.job import Job
from crossloom.codesign.machine import check, threads
from crossloom.codesign.progress import Progress, Silent
from crossloom.codesign.record import Result

Report = Callable[[Path], object]
"""Writes something for people from a complete run's folder, such as `crossloom.report.write_report`."""


def run(
    config: RunConfig,
    folder: str | os.PathLike[str],
    *,
    fresh: bool = False,
    command: Sequence[str] | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Result:
    """Do a run, or what is left of it.

    Args:
        config: what to do.
        folder: the run's folder, made if missing. A complete run in it is not done again.
        fresh: remove what the folder holds of a run and start over.
        command: for the record; default this process's command line.
        progress: who watches.
        report: called with the folder when the record is written.

    Returns:
        The record, as it stands in `result.json`.

    Raises:
        InputError: something in the configuration, the data or the folder cannot be used.
        FloatingPointError: training diverged.
        KeyboardInterrupt: Ctrl-C; the same call resumes.
        OSError: the folder cannot be written to, a full disk for one; what is there stays whole.
    """
    path, progress = Path(folder), progress or Silent()
    check(config.machine)
    hardware = config.chip()
    state = RunFolder(path, config)
    job = Job(config, hardware, state, progress)
    if not state.begun:
        job.check_inputs()  # before anything is written
    with locked(path), threads(config.machine.threads):
        state.prepare(hardware, fresh)
        if state.complete:
            result = Result.load(path).model_copy(update={"run_dir": str(path)})
            progress.note(f"{path}: complete since {result.created}; --fresh does it again")
        else:
            state.holds(job.data.fingerprint())
            stages: list[tuple[str, Callable[[], None]]] = [
                ("train" if config.training else "weights", job.train),
                *job.middle(),
                ("compile", job.compile),
            ]
            for name, work in stages:
                if not state.done(name):
                    work()
            for rung in job.rungs:
                if not state.done(rung):
                    with job.stage(rung, "rung on the test images") as outcome:
                        made = job.evaluate(rung)
                        outcome.append(f"{100 * made.accuracy:.2f} % of {made.images} images")
            with state.stage("result"):
                job.result(sys.argv if command is None else command)
            result = Result.load(path)
        if report is not None and not state.done("report"):
            progress.begin("report", "a page for the browser")
            with state.stage("report"):
                report(path)
            progress.end("report", state.stages["report"], str(path / "report.html"))
        return result
