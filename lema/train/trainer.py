"""transformers' Trainer, as the recipe's settings and the shard of this process need it."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lema.recipe.training_schema import AdapterSpec
from lema.train import Progress
from lema.train.batching import Shard, TokenRow, accumulation_steps, completion_loss, sharded_loader


def make_trainer(
    network: Any,
    rows: Sequence[TokenRow],
    held_out: Sequence[TokenRow],
    collate: Callable[..., Any],
    order: list[int] | None,
    spec: AdapterSpec,
    scratch: Path,
    log: Progress,
    shard: Shard | None,
) -> Any:
    """A Trainer that reads the rows in the given `order`, the same in every epoch (None: drawn for each), and the shard
    of them where several processes train together. Checkpoints go to `scratch`."""
    from torch.utils.data import DataLoader
    from transformers import PrinterCallback, Trainer

    class OrderedTrainer(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return super()._get_train_sampler(train_dataset) if order is None else order

        def get_train_dataloader(self) -> Any:
            return sharded_loader(rows, order, spec, shard, collate) if shard else super().get_train_dataloader()

        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            if shard is None:
                return super().get_eval_dataloader(eval_dataset)
            # Few examples: every process measures all of them, so that the same checkpoint is chosen.
            return DataLoader(self.eval_dataset, spec.batch, collate_fn=collate)

        def _load_best_model(self) -> None:
            if shard is None or shard.rank == 0:
                super()._load_best_model()

    trainer = OrderedTrainer(
        model=network,
        args=_training_arguments(spec, scratch, shard),
        train_dataset=rows,
        eval_dataset=held_out or None,
        data_collator=collate,
        compute_loss_func=completion_loss,
        callbacks=[_progress_callback(log, spec, shard)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _training_arguments(spec: AdapterSpec, scratch: Path, shard: Shard | None) -> Any:
    import torch
    from transformers import TrainingArguments

    gpu = torch.cuda.is_available()
    every = spec.choose.every if spec.choose else spec.save_every
    choosing = {
        "eval_strategy": "steps",
        "eval_steps": every,
        "per_device_eval_batch_size": spec.batch,
        "prediction_loss_only": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }
    arguments = TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=spec.batch,
        gradient_accumulation_steps=accumulation_steps(spec, shard.world_size) if shard else spec.accumulate,
        num_train_epochs=spec.epochs or 1,
        max_steps=spec.steps or -1,
        learning_rate=spec.lr,
        lr_scheduler_type=spec.schedule,
        warmup_steps=spec.warmup,
        optim="adamw_torch_fused" if spec.optimizer == "adamw" else spec.optimizer,
        weight_decay=spec.weight_decay,
        adam_beta2=spec.beta2,
        max_grad_norm=spec.max_grad_norm,
        gradient_checkpointing=spec.gradient_checkpointing,
        logging_steps=1,
        save_steps=every,
        save_total_limit=2,
        seed=spec.seed,
        data_seed=spec.seed,
        bf16=gpu,
        use_cpu=shard is not None and not gpu,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
        remove_unused_columns=False,
        # Looking for them breaks gradient checkpointing, and there are none where every weight is used.
        ddp_find_unused_parameters=False if spec.gradient_checkpointing else None,
        **(choosing if spec.choose else {}),
    )
    if arguments.n_gpu > 1:
        # Left alone, the Trainer would split each batch among all GPUs; a packed one is a single row.
        arguments._n_gpu = 1
    return arguments


def _progress_callback(log: Progress, spec: AdapterSpec, shard: Shard | None) -> Any:
    from transformers import TrainerCallback, set_seed

    class ProgressCallback(TrainerCallback):  # type: ignore[misc]
        """Reports optimizer steps with the newest loss, and checkpoints."""

        loss = ""

        def on_train_begin(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
            log(state.global_step, state.max_steps, "")

        def on_log(self, _arguments: Any, _state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self.loss = f"loss {float(logs['loss']):.3f}"

        def on_step_begin(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
            if shard:
                # Dropout draws otherwise in every process, and the same again after a restart.
                set_seed(random.Random(f"{spec.seed} {state.global_step} {shard.rank}").getrandbits(32))

        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step >= state.max_steps and arguments.eval_strategy != "no":
                # The last checkpoint can be chosen too, whatever its number.
                control.should_evaluate = True
            log(state.global_step, state.max_steps, self.loss)

        def on_save(self, arguments: Any, state: Any, _control: Any, **_: Any) -> None:
            if shard and shard.rank == 0:
                kept = [path.name for path in Path(arguments.output_dir).glob("checkpoint-*")]
                shard.saved(Path(arguments.output_dir) / f"checkpoint-{state.global_step}", kept)

    return ProgressCallback()
