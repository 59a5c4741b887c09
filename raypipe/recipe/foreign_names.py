"""Names that other trainers have for the fields of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from raypipe.config import nearest, plain_letters
from raypipe.names import quoted

_STAGE = "stages.NAME"
_FIELDS: Mapping[str, str] = {
    "name": "run_name experiment_name project",
    "seed": "random_seed random_state",
    "precision": "fp16 bf16 mixed_precision dtype torch_dtype amp",
    "storage": "output_dir save_dir artifacts_dir",
    "tracking": "report_to tracking_uri mlflow_tracking_uri mlflow_uri",
    "reference": "baseline",
    "candidates": "first_stage retriever first_stage_run",
    "groups": "training_samples train_samples training_tuples n_way",
    "candidates.depth": "top_k num_candidates",
    "data.train.dataset": "dataset_name train_dataset train_file train_data",
    "data.validation.dataset": "eval_dataset validation_file eval_data",
    "evaluation.measures": "metrics metric compute_metrics",
    "evaluation.selection": "metric_for_best_model monitor",
    "evaluation.depth": "rerank_depth rerank_top_k",
    "groups.negatives.count": "num_negatives negatives_per_query num_hard_negatives group_size "
    "train_group_size",
    "model.backbone": "model_name model_name_or_path pretrained_model_name_or_path base_model "
    "pretrained",
    "model.hidden_dropout": "dropout",
    "model.keep_layers": "num_layers num_hidden_layers",
    "resources.workers": "num_workers num_gpus n_gpu world_size nproc_per_node",
    "resources.micro_batch_tokens": "gradient_accumulation_steps accumulation_steps "
    "micro_batch_size mini_batch_size per_device_eval_batch_size eval_batch_size",
    "truncation.max_length": "max_length max_seq_length max_seq_len model_max_length",
    "truncation.query": "query_max_length query_max_len max_query_length",
    "truncation.doc": "passage_max_len doc_max_length max_doc_length max_passage_length",
    f"{_STAGE}.lr": "learning_rate max_lr peak_lr base_lr",
    f"{_STAGE}.queries_per_step": "batch_size train_batch_size global_batch_size "
    "per_device_train_batch_size per_gpu_train_batch_size",
    f"{_STAGE}.epochs": "num_train_epochs num_epochs n_epochs max_epochs",
    f"{_STAGE}.steps": "max_steps num_steps train_steps total_steps num_training_steps",
    f"{_STAGE}.warmup": "warmup_ratio warmup_proportion warmup_fraction",
    f"{_STAGE}.warmup_steps": "num_warmup_steps",
    f"{_STAGE}.schedule": "lr_scheduler_type lr_scheduler scheduler",
    f"{_STAGE}.clip": "max_grad_norm grad_clip gradient_clip_val clip_grad_norm",
    f"{_STAGE}.eps": "adam_epsilon epsilon",
    f"{_STAGE}.betas": "adam_beta1 adam_beta2 adam_betas",
    f"{_STAGE}.weight_decay": "wd l2",
    f"{_STAGE}.limit": "max_train_samples max_samples",
    f"{_STAGE}.validate_every": "eval_steps eval_every evaluation_steps val_check_interval",
    f"{_STAGE}.checkpoint_every": "save_steps save_every",
    f"{_STAGE}.checkpoints_kept": "save_total_limit",
    f"{_STAGE}.early_stopping.patience": "early_stopping_patience patience",
    f"{_STAGE}.loss": "loss_fn loss_type loss_function criterion",
}
"""Field of a recipe to the names that it has elsewhere."""
_REMARKS = {
    "resources.micro_batch_tokens": "counted in tokens, and without effect on results",
    f"{_STAGE}.queries_per_step": "queries of one optimizer step, over all workers",
    f"{_STAGE}.warmup": "a share of the steps",
    f"{_STAGE}.validate_every": "in steps",
}
OWN_NAMES = {
    plain_letters(foreign): field for field, names in _FIELDS.items() for foreign in names.split()
}
"""Foreign name in plain letters to the field that it means."""


def elsewhere(field: str) -> list[str]:
    """The names that a field of a recipe has elsewhere."""
    return _FIELDS.get(field, "").split()


def unknown_key(path: str, key: str, valid: Iterable[str]) -> str:
    """The error of a key that no field has: its name here, or the nearest valid one.

    Args:
        path: dotted, the key at its end.
        valid: the names of the fields beside it.
    """
    field = OWN_NAMES.get(plain_letters(key))
    if field is None:
        return f"{path}: unknown key {quoted(key)}{nearest(key, valid)}"
    name = field.rpartition(".")[2]
    place = f"is called {name!r}" if name in set(valid) else f"is {field}"
    remark = f" ({_REMARKS[field]})" if field in _REMARKS else ""
    return f"{path}: unknown key {quoted(key)}; here it {place}{remark}"
