"""A thin `transformers.Trainer`: only the fusion is trained, saved and restored.

The Trainer brings AdamW, the schedule, clipping, accumulation, mixed precision and the state for resuming. Added
here: batches of similar length in an order that depends on seed and epoch alone (so that a resumed run sees the same
batches), development evaluation by label scoring, a checkpoint chosen by it, and an interrupt that loses nothing.
"""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from glotfuse import distributed
from glotfuse.errors import CheckpointError
from glotfuse.inputs.batch import PreparedExample, split_rows, training_inputs
from glotfuse.inputs.order import CPU_TOKENS, LengthGroupedOrder
from glotfuse.inputs.padding import IGNORED
from glotfuse.model.fused_model import FusedModel
from glotfuse.model.layer_weights import layer_weight_metrics
from glotfuse.progress import graceful_interrupt
from glotfuse.recipes.checks import check_trackers
from glotfuse.recipes.training_config import TrainingConfig
from glotfuse.training.averaging import Averaging, figure_of_average, is_better
from glotfuse.training.code_switching import SwitchedExamples
from glotfuse.training.data_parallel import is_sharded, keep_frozen_apart, most_parts, shared_loader, stay_on, wrapped
from glotfuse.training.development import DevExamples, development_metrics
from glotfuse.training.divergence import refuse_divergence
from glotfuse.training.schedule import Schedule
from glotfuse.training.state import TrainingInterruptedError, last_state, load_parts, save_parts, separate_adapter
from glotfuse.training.tracking import LogFile, tracking

_APART = 16
"""What a token of a row's own prompt head counts for, when rows are sorted by length."""
_LOG_EVERY = 10
"""Steps from one log line to the next on a GPU."""
_WEIGHT_TEXTS = 32
"""Development texts whose mean layer weights are logged at each evaluation."""


@dataclass(frozen=True)
class TrainingOutcome:
    """What training did."""

    num_steps: int
    """Optimizer steps."""
    best_step: int | None
    """Step of the chosen checkpoint, None without development data."""
    best_metric: float | None
    """Its development figure."""
    log: list[dict[str, float]]
    """The Trainer's log: losses, learning rates, development figures."""
    average_metric: float | None = None
    """Development figure of the averaged weights, None without any."""


class FusionTrainer(Trainer):  # type: ignore[misc]
    """Trains a model's fusion; see the module's docstring.

    Args:
        model: The model.
        args: Arguments of transformers.
        train: Prepared training examples with answers.
        dev: Development examples, or None.
        eval_batch_size: Development examples per forward pass.
        max_tokens: Most encoder and plain-text tokens per forward pass; None has no limit.
        adapter_learning_rate: Peak for the LM's adapter; None takes that of the fusion.
        averaging: Adds up the weights of the last steps.
        **options: Passed on.
    """

    def __init__(
        self,
        model: FusedModel,
        args: TrainingArguments,
        train: Sequence[PreparedExample],
        dev: DevExamples | None,
        eval_batch_size: int = 32,
        max_tokens: int | None = None,
        adapter_learning_rate: float | None = None,
        averaging: Averaging | None = None,
        **options: Any,
    ):
        self._averaging = averaging
        self._max_tokens = max_tokens
        self._adapter_learning_rate = adapter_learning_rate
        self._pad = model.encoder.pad_token_id
        super().__init__(model, args, data_collator=self._collate, train_dataset=train, **options)
        self._dev = dev
        self._eval_batch_size = eval_batch_size

    def _collate(self, examples: Sequence[PreparedExample]) -> dict[str, Tensor]:
        if get_worker_info() is not None:  # Ctrl-C reaches the workers too, whose batches the last step still needs
            for wanted in (signal.SIGINT, signal.SIGTERM):
                signal.signal(wanted, signal.SIG_IGN)
        return training_inputs(examples, self._pad) if examples else self._nothing_to_learn()

    def _nothing_to_learn(self) -> dict[str, Tensor]:
        """A row without answer, with which a process takes part that has none of its own: its gradient is zero."""
        return training_inputs([replace(self.train_dataset[0], answer_ids=[])], self._pad)

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """One batch, in parts within the token budget: the same gradient with less memory at once."""
        step: Callable[..., Tensor] = super().training_step
        if self._max_tokens is None:
            return step(model, inputs, num_items_in_batch)
        if num_items_in_batch is None:
            num_items_in_batch = (inputs["labels"] != IGNORED).sum()
        parts = split_rows(inputs, self._max_tokens)
        parts += [self._nothing_to_learn() for _ in range(most_parts(self.model, len(parts)) - len(parts))]
        losses = []
        for number, part in enumerate(parts, start=1):
            # Processes may have different numbers of parts: they add up their gradients after the last one.
            with nullcontext() if number == len(parts) else self.accelerator.no_sync(model):
                losses.append(step(model, part, num_items_in_batch))
        return torch.stack(losses).sum()

    def create_optimizer(self, model: Any = None) -> Any:
        """The Trainer's, with a learning rate of its own for the adapter."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh and self._adapter_learning_rate is not None:
            separate_adapter(optimizer, self.model, self._adapter_learning_rate)
        return optimizer

    def _wrap_model(self, model: Any, *arguments: Any, **options: Any) -> Any:
        return wrapped(model) if is_sharded(model) else super()._wrap_model(model, *arguments, **options)

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        """Nothing: encoder, LM and fusion are where the recipe put them, which may be any device, or several."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches; of several processes each gets its rows of the same batches."""
        if distributed.world_size() == 1:
            loader: DataLoader[Any] = super().get_train_dataloader()
            return loader
        order, pinned = self._get_train_sampler(), self.args.dataloader_pin_memory
        return shared_loader(self.train_dataset, order, self._collate, self.args.device, pin_memory=pinned)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedOrder:
        examples, switched = self.train_dataset, isinstance(self.train_dataset, SwitchedExamples)
        plain = examples.plain if switched else examples
        # rows with a prompt head of their own run together, for others can share a cached one
        lengths = [len(e.encoder_ids) + len(e.text_ids) + len(e.answer_ids) + _APART * len(e.head_ids) for e in plain]
        batch_size = self.args.train_batch_size * distributed.world_size()
        on_epoch = examples.set_epoch if switched else None
        return LengthGroupedOrder(lengths, batch_size, self.args.seed, on_epoch=on_epoch)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Development loss, and accuracy where there are labels, without gradient and in evaluation mode."""
        model: FusedModel = self.model
        was_training = model.training
        model.eval()
        with self.accelerator.autocast():  # the precision that training sees
            metrics = development_metrics(model, self._dev, self._eval_batch_size) if self._dev else {}
        model.train(was_training)
        weights = layer_weight_metrics(model, self._dev.examples[:_WEIGHT_TEXTS]) if self._dev else {}
        self.log({**metrics, **weights})
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's, and an end to a training whose loss is not finite.

        Raises:
            TrainingDivergedError: It is not.
        """
        super().log(logs, start_time)
        place, scaled = Path(self.args.output_dir), self.args.fp16
        refuse_divergence(logs, self.state.global_step, place, scaled=scaled)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        save_parts(self.model, folder)
        if self._averaging is not None:
            self._averaging.save(folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as RuntimeError
            shutil.rmtree(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", ignore_errors=True)
            raise CheckpointError(
                f"Expected to save the state of step {self.state.global_step} in {self.args.output_dir}; found: "
                f"{error}. Earlier states there are whole: free some space and run the same command again."
            ) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_parts(model or self.model, Path(resume_from_checkpoint))
        if self._averaging is not None:
            self._averaging.load(Path(resume_from_checkpoint))


def train(
    model: FusedModel,
    train_examples: Sequence[PreparedExample],
    dev: DevExamples | None,
    state_folder: Path,
    config: TrainingConfig,
    *,
    eval_batch_size: int = 32,
    adapter_learning_rate: float | None = None,
) -> TrainingOutcome:
    """Trains the fusion, and the LM's adapter where it learns.

    Goes on from `state_folder` where an interrupted run left its state there.

    At the end the model holds the weights that the development examples chose, or the last ones without any.

    Args:
        model: The model.
        train_examples: With their answers.
        dev: What chooses the weights; None takes the last.
        state_folder: Where the state for resuming is kept; the log is beside it.
        config: Settings of the optimisation.
        eval_batch_size: Development examples per forward pass.
        adapter_learning_rate: Peak for the LM's adapter; None takes that of the fusion.

    Raises:
        TrainingInterruptedError: The user pressed Ctrl-C; the state is saved.
        TrainingDivergedError: A loss or gradient norm is not finite.
        ConfigError: A tracker of `report_to` is not installed, or the processes cannot share a batch evenly.
    """
    check_trackers(config.report_to)
    try:
        state_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"Expected to make {state_folder}; found: {error.strerror or error}. "
            "Free some space or choose another folder."
        ) from error
    last = distributed.once(lambda: last_state(state_folder))
    chosen_by = f"eval_{config.select_by}" if dev and config.select_by != "last" else None
    steps = max(1, math.ceil(math.ceil(len(train_examples) / config.batch_size) / config.accumulation * config.epochs))
    args = TrainingArguments(
        output_dir=str(state_folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=distributed.share_of_batch(config.batch_size),
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        adam_beta1=config.betas[0],
        adam_beta2=config.betas[1],
        weight_decay=config.weight_decay,
        warmup_steps=math.ceil(steps * config.warmup_ratio),
        lr_scheduler_type="cosine",
        max_grad_norm=config.max_grad_norm,
        bf16=config.precision == "bfloat16",
        fp16=config.precision == "float16",
        seed=config.seed,
        use_cpu=model.device.type == "cpu",
        save_strategy="steps",
        save_steps=10**9,
        save_total_limit=2,
        metric_for_best_model=chosen_by,
        greater_is_better=config.select_by == "accuracy" if chosen_by else None,
        logging_steps=10**9,
        logging_nan_inf_filter=False,
        report_to=list(config.report_to) or "none",
        run_name=state_folder.parent.name,
        project="glotfuse",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=model.device.type == "cuda",
        dataloader_num_workers=config.workers,
        label_names=["labels"],
        ddp_find_unused_parameters=False,
        ddp_timeout=int(distributed.TIMEOUT.total_seconds()),
    )
    if args.device.type == "cuda":
        args._n_gpu = 1  # several would wrap the model in DataParallel; torchrun is the way to use them
        if distributed.world_size() == 1:
            stay_on(args, model.device)
    model.gradient_checkpointing = config.gradient_checkpointing
    keep_frozen_apart(model)
    stopping = "Stopping after this step and saving the state; press Ctrl-C again to stop at once."
    with graceful_interrupt(stopping) as stop, tracking(state_folder.parent):
        every = 1 if model.device.type == "cpu" else _LOG_EVERY
        schedule = Schedule(config.evaluations, stop, dev is not None, config.batch_size * config.accumulation, every)
        max_tokens = config.max_tokens or (CPU_TOKENS if model.device.type == "cpu" else None)
        averaging = Averaging(model, config.average)
        trainer = FusionTrainer(
            model,
            args,
            train_examples,
            dev,
            eval_batch_size,
            max_tokens,
            adapter_learning_rate,
            averaging,
            callbacks=[schedule, averaging, LogFile(state_folder.parent)],
        )
        trainer.model_accepts_loss_kwargs = True
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        finally:
            schedule.close()
    distributed.barrier()  # every process has written its part of the state
    state = trainer.state
    if stop.requested and state.global_step < state.max_steps:
        raise TrainingInterruptedError(
            f"Interrupted after step {state.global_step} of {state.max_steps}; the state is saved in {state_folder}. "
            "Run the same command again to go on from there."
        )
    best_step, best_metric = state.best_global_step, state.best_metric
    if chosen_by and state.best_model_checkpoint:
        load_parts(model, Path(state.best_model_checkpoint))
    figure = figure_of_average(model, averaging, dev, config, eval_batch_size)
    if figure is not None and is_better(figure, best_metric, config):
        averaging.apply()
        best_step, best_metric = state.global_step, figure
    distributed.barrier()  # every process has read the weights before the state goes
    model.eval()
    return TrainingOutcome(state.global_step, best_step, best_metric, list(state.log_history), figure)
