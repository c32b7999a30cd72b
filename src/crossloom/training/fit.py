"""`fit`: train a network on a data set into a run folder, or go on where a run stopped.

The run folder receives `training.json` (the configuration), `metrics.csv` (one line per epoch), `checkpoints/last.ckpt`
(written between epochs, whole or not at all) and, when training is done, `weights.safetensors`.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from crossloom.errors import InputError
from crossloom.training.config import TrainingConfig
from crossloom.training.data import DataSet
from crossloom.training.evaluate import evaluate
from crossloom.training.memory import kept_memory
from crossloom.training.seeds import derive
from crossloom.training.small_maps import SmallMaps
from crossloom.training.weights import save_weights
from crossloom.weave.store import write_text

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from crossloom.training.trainer import ExtraLoss, LossFunction

FREE_ON_RESUME = ("accelerator", "threads", "validate_every", "checkpoint_every")
"""Fields that may differ when a run goes on: they decide how, not what."""


@dataclass(frozen=True)
class FitResult:
    """What a training run came to.

    Attributes:
        accuracy: fraction of the test images right after the last epoch.
        epochs: epochs done in total, earlier parts of a resumed run included.
        images: training images seen in total.
        seconds: wall-clock time of this call.
        history: one record per epoch: epoch, train_loss, train_accuracy and, where measured, test_accuracy.
        checkpoint: the last checkpoint.
        weights: the trained weights, safetensors.
    """

    accuracy: float
    epochs: int
    images: int
    seconds: float
    history: tuple[dict[str, float], ...]
    checkpoint: Path
    weights: Path


def checkpoint_path(run_dir: str | os.PathLike[str]) -> Path:
    """Where a run keeps its last checkpoint; the file exists if the run can be resumed."""
    return Path(run_dir) / "checkpoints" / "last.ckpt"


def fit(
    network: nn.Module,
    data: DataSet,
    config: TrainingConfig,
    run_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    loss: LossFunction | None = None,
    extra_loss: ExtraLoss | None = None,
    progress: bool = True,
) -> FitResult:
    """Train `network` in place; it comes back on the CPU in evaluation mode.

    There is no choice of the best epoch: the weights are those after the last one, and the test images decide nothing.
    On one machine's CPU with the same number of threads a run that was killed and resumed ends with the same bits as
    one that was not. The caller's random state is left as it was.

    Args:
        network: images [B, C, H, W] → logits [B, classes].
        data: what to train and test on.
        config: how to train.
        run_dir: folder for checkpoint, metrics and weights; created if missing. Without `resume` a run
            that is there already is replaced.
        resume: go on from the folder's last checkpoint.
        callbacks: Lightning callbacks, the way in for methods; their `state_dict` is kept in the checkpoint.
        loss: (logits, labels) → scalar, in place of cross-entropy.
        extra_loss: (network, images, logits, labels) → scalar added to the loss at every step.
        progress: show a bar on standard error.

    Raises:
        InputError: nothing to resume, or a checkpoint that is damaged or of another network, data set or
            configuration; a network whose logits do not fit the data; precision or device that the machine lacks.
        FloatingPointError: the weights are no longer finite after training.
        KeyboardInterrupt: Ctrl-C; the last checkpoint can be resumed.
        OSError: the folder cannot be written to.
    """
    started = time.monotonic()
    folder, last = Path(run_dir), checkpoint_path(run_dir)
    identity = {
        "config": json.loads(config.model_dump_json(exclude=set(FREE_ON_RESUME))),
        "data": data.fingerprint(),
        "network": shape_digest(network),
    }
    check_machine(config)
    check_logits(network, data)
    if resume:
        check_resumable(last, identity)
    write_text(folder / "training.json", config.model_dump_json(indent=2) + "\n")

    with ExitStack() as stack:
        stack.enter_context(kept_memory())
        stack.enter_context(quiet_lightning())
        from lightning.pytorch.utilities.seed import isolate_rng

        from crossloom.training.trainer import Bar, Classifier, DataModule, Record

        stack.enter_context(isolate_rng(include_cuda=torch.cuda.is_available()))
        stack.enter_context(threads(config.threads))
        stack.enter_context(deterministic_kernels(config.deterministic))
        record = Record(last, folder / "metrics.csv", config, identity)
        bars = [Bar(data.name)] if progress else []
        trainer = make_trainer(config, folder, [*callbacks, record, *bars])
        if config.channels_last:
            network.to(memory_format=torch.channels_last)
        torch.manual_seed(derive(config.seed, "start"))
        if config.precision == "bf16-mixed":
            stack.enter_context(SmallMaps())
        try:
            with interruptible():
                module = Classifier(network.train(), config, loss, extra_loss)  # Lightning leaves the mode as it is
                trainer.fit(module, datamodule=DataModule(data, config), ckpt_path=str(last) if resume else None)
        finally:
            for bar in bars:
                bar.close()
            network.to("cpu")
            network.to(memory_format=torch.contiguous_format)
            network.eval()
        device = trainer.strategy.root_device
        finite(network)
        accuracy = evaluate(network, data.test_loader(), device)
        save_weights(network, folder / "weights.safetensors")
    epochs = int(record.history[-1]["epoch"])
    return FitResult(
        accuracy=accuracy,
        epochs=epochs,
        images=epochs * len(data.train.labels),
        seconds=time.monotonic() - started,
        history=tuple(record.history),
        checkpoint=last,
        weights=folder / "weights.safetensors",
    )


def make_trainer(config: TrainingConfig, folder: Path, callbacks: list[Callback]) -> Any:
    """Lightning's trainer without its own bar, summary, checkpoints and advice."""
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import TensorBoardLogger

    from crossloom.training.trainer import AtomicCheckpointIO

    tensorboard = find_spec("tensorboard") is not None or find_spec("tensorboardX") is not None
    return pl.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        precision="32-true" if config.precision == "32" else config.precision,
        max_epochs=config.epochs,
        gradient_clip_val=config.gradient_clip,
        check_val_every_n_epoch=config.validate_every,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        logger=TensorBoardLogger(folder, name="tensorboard", version="") if tensorboard else False,
        default_root_dir=folder,
    )


def shape_digest(network: nn.Module) -> str:
    """Names and shapes of all parameters and buffers, as sixteen hexadecimal digits."""
    shapes = [f"{name}{tuple(value.shape)}" for name, value in network.state_dict().items()]
    return f"{derive(0, *shapes):016x}"


def check_machine(config: TrainingConfig) -> None:
    """Raise `InputError` if the configuration asks for what this machine has not."""
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("training.accelerator", "gpu", "cpu or auto: torch finds no GPU here")
    on_gpu = torch.cuda.is_available() and config.accelerator != "cpu"
    if config.precision == "16-mixed" and not on_gpu:
        raise InputError("training.precision", "16-mixed", "32 or bf16-mixed: float16 training needs a GPU")
    if on_gpu and config.devices > torch.cuda.device_count():
        raise InputError("training.devices", config.devices, f"at most {torch.cuda.device_count()}, the GPUs here")


def check_logits(network: nn.Module, data: DataSet) -> None:
    """Raise `InputError` if the network cannot take the images or gives another number of logits than classes."""
    parameter = next((p for p in network.parameters() if p.requires_grad), None)
    if parameter is None:
        raise InputError("network", type(network).__name__, "a module with parameters to train")
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(1, *data.image_shape, device=parameter.device))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            "network", type(network).__name__, f"one that takes images {data.image_shape} ({error})"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
    if tuple(logits.shape) != (1, len(data.classes)):
        raise InputError("network", tuple(logits.shape), f"logits (1, {len(data.classes)}) for {data.name}")


def check_resumable(last: Path, identity: dict[str, Any]) -> None:
    """Raise `InputError` unless `last` is a whole checkpoint of the run that `identity` describes."""
    if not last.is_file():
        raise InputError("resume", str(last), "a checkpoint to go on from; there is none, start without resume")
    try:
        found = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["crossloom"]
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise InputError(
            "resume", str(last), "a checkpoint that fit wrote; it is damaged or of another kind"
        ) from error
    for part in ("network", "data"):
        if found[part] != identity[part]:
            raise InputError("resume", str(last), f"a checkpoint of this {part}; it was written with another one")
    changed = [name for name, value in identity["config"].items() if found["config"].get(name) != value]
    if changed:
        was = ", ".join(f"{name} {found['config'].get(name)!r}" for name in changed)
        now = {name: identity["config"][name] for name in changed}
        raise InputError("training", now, f"the values the run was started with ({was})")


def finite(network: nn.Module) -> None:
    """Raise `FloatingPointError` if a weight is NaN or infinite."""
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise FloatingPointError(f"training diverged: {name} is no longer finite; try a lower training.lr")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """No advice, advertisements or hardware lines from Lightning; its errors still come through."""
    import lightning.pytorch  # noqa: F401  (it sets its loggers' levels when first imported)

    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("ignore", message=r".*(litlogger|litmodels|does not have many workers).*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Torch with `count` CPU threads inside, as before outside; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Only reproducible kernels inside if `wanted`, as before outside."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C inside is `KeyboardInterrupt` outside, and works again afterwards.

    Lightning answers it with `SystemExit(1)` and leaves the signal ignored.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
