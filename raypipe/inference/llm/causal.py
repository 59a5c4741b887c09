"""A causal language model on one device: text by greedy decoding or drawn, choices by their next
token.

`chat_tokenizer` and `causal_lm` load tokenizer and weights from safetensors or a GGUF file, `Chat`
writes a prompt as token ids, `CausalModel` answers prompts; `drawing` draws.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raypipe.config import ConfigError
from raypipe.inference.llm.base import Answer, Prompt
from raypipe.inference.llm.drawing import drawing
from raypipe.inference.llm.thinking import THINKING, cut_in_thinking
from raypipe.inference.pairs import length_batches

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
READ_TOKENS = {"cpu": 2_048, "cuda": 32_768}
"""Per batch where one forward is all: what fits a CPU's cache, or a GPU."""
WRITE_TOKENS = {"cpu": 16_384, "cuda": 32_768}
"""Per batch where text is written: each new token reads all weights, so many rows at a time."""
_SLOT = "raypipe-slot-{}-"
"""Stands for the number-th message's text while the chat template is rendered."""


class CausalModel:
    """Answers prompts in length-sorted, left-padded batches, each call by itself.

    A choice's log-probability is that of its first token, with or without a space before it: the
    two are added. Strings of special tokens within a message stay text. In bf16 the composition of
    a batch moves log-odds by up to 0.1 (0.05 seen), in fp32 by 1e-4.

    Args:
        folder: config, tokenizer and safetensors, or `gguf_file` in it.
        context_tokens: a prompt that is longer with its new tokens is refused, never cut.
        batch_tokens: padded tokens per batch, or None for the defaults above.
        chat_template_kwargs: variables for the chat template.
    """

    def __init__(
        self,
        folder: Path,
        gguf_file: str | None,
        context_tokens: int,
        batch_tokens: int | None,
        device: str,
        precision: str,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = chat_tokenizer(folder, gguf_file)
        self._chat = Chat(self._tokenizer, chat_template_kwargs or {})
        self._model = causal_lm(folder, gguf_file, precision, self._tokenizer).to(device)
        longest = getattr(self._model.config, "max_position_embeddings", context_tokens)
        if context_tokens > longest:
            raise ConfigError(
                f"engine transformers: context_tokens {context_tokens} is more than the "
                f"{longest} that {gguf_file or folder.name} has"
            )
        self._context_tokens = context_tokens
        self._read_tokens = batch_tokens or READ_TOKENS[device]
        self._write_tokens = batch_tokens or WRITE_TOKENS[device]
        self._device = device

    def __call__(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
        """Answers in order; `text` is the likeliest choice where there are choices.

        Raises:
            ConfigError: there are choices, and the chat template has the model think first.
        """
        if self._chat.thinks and any(prompt.choices for prompt in prompts):
            raise ConfigError(
                "engine transformers: the chat template begins the model's answer with thinking, "
                "so its next token is no answer; expected a template that can switch thinking off "
                "(chat_template_kwargs), take another model or a listwise teacher"
            )
        ids = [self.encode(prompt) for prompt in prompts]
        room = [self._context_tokens - (1 if p.choices else max_new_tokens) for p in prompts]
        answers = [
            Answer(error=f"a prompt of {len(prompt_ids)} tokens, there is room for {most}")
            for prompt_ids, most in zip(ids, room, strict=True)
        ]
        fitting = [i for i, prompt_ids in enumerate(ids) if len(prompt_ids) <= room[i]]
        with_choices = [i for i in fitting if prompts[i].choices]
        for batch in _batches(with_choices, ids, 1, self._read_tokens):
            logprobs = self.next_token([ids[i] for i in batch])
            for i, row in zip(batch, logprobs, strict=True):
                answers[i] = self._chosen(prompts[i].choices, row)
        without_choices = [i for i in fitting if not prompts[i].choices]
        for batch in _batches(without_choices, ids, max_new_tokens, self._write_tokens):
            texts = self._write(
                [ids[i] for i in batch], [prompts[i] for i in batch], max_new_tokens
            )
            for i, text in zip(batch, texts, strict=True):
                answers[i] = Answer(text)
        return answers

    def count_tokens(self, text: str) -> int:
        """Without special tokens."""
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of the chat, ending where the assistant's turn begins."""
        return self._chat.encode(prompt)

    def next_token(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """[len(rows), vocabulary] float32 log-probabilities of the token after each row.

        The head runs in float32: bf16 logits near 20 come in steps of 0.125.
        """
        input_ids, mask = self._pad(rows)
        head = self._model.get_output_embeddings()
        self._model.set_output_embeddings(_Float32Head(head))
        try:
            with torch.inference_mode():
                logits = self._model(
                    input_ids=input_ids,
                    attention_mask=mask,
                    position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                    use_cache=False,
                    logits_to_keep=1,
                ).logits[:, -1]
        finally:
            self._model.set_output_embeddings(head)
        return torch.log_softmax(logits.float(), dim=-1).cpu()

    def first_tokens(self, choices: Sequence[str]) -> list[list[int]]:
        """Per choice the ids that begin it, with and without a space.

        Raises:
            ConfigError: two choices begin with the same token.
        """
        tokens_by_choice = [
            sorted({t for text in (choice, f" {choice}") if (t := self._first(text)) is not None})
            for choice in choices
        ]
        every = [token for tokens in tokens_by_choice for token in tokens]
        if len(set(every)) < len(every) or not all(tokens_by_choice):
            raise ConfigError(
                f"engine transformers: this tokenizer cannot tell {', '.join(choices)} apart by "
                "the first token; use another model or a listwise teacher"
            )
        return tokens_by_choice

    def _first(self, text: str) -> int | None:
        """The first token that is not blank."""
        ids = self._chat.ids(text)
        return next((token for token in ids if self._tokenizer.decode([token]).strip()), None)

    def _chosen(self, choices: Sequence[str], logprobs: torch.Tensor) -> Answer:
        if (begun := self._chat.thinking.get(int(logprobs.argmax()))) is not None:
            return Answer(begun)  # the model would think first: this token is no answer
        values = {
            choice: float(torch.logsumexp(logprobs[tokens], 0))
            for choice, tokens in zip(choices, self.first_tokens(choices), strict=True)
        }
        return Answer(max(values, key=lambda choice: values[choice]), values)

    def _write(
        self, rows: Sequence[Sequence[int]], prompts: Sequence[Prompt], max_new_tokens: int
    ) -> list[str]:
        input_ids, mask = self._pad(rows)
        sampling = [prompt.sampling for prompt in prompts]
        drawn = drawing(
            sampling, input_ids.shape[1], None if self._chat.thinks else self._chat.text
        )
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=input_ids, attention_mask=mask, max_new_tokens=max_new_tokens, **drawn
            )
        begun = next(iter(THINKING)) if self._chat.thinks else ""
        return [begun + self._chat.text(row) for row in out[:, input_ids.shape[1] :].tolist()]

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """[rows, longest] ids and mask, padded on the left."""
        longest = max(map(len, rows))
        pad = self._model.generation_config.pad_token_id
        ids = [[pad] * (longest - len(row)) + list(row) for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids, device=self._device), torch.tensor(mask, device=self._device)


class _Float32Head(nn.Module):
    """The output projection of a bf16 model, computed in float32."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self._head = head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        bias = None if self._head.bias is None else self._head.bias.float()
        return nn.functional.linear(hidden.float(), self._head.weight.float(), bias)


def _batches(
    indices: Sequence[int], ids: Sequence[Sequence[int]], new: int, budget: int
) -> list[list[int]]:
    """The indices in batches of similar length, each within `budget` padded tokens.

    Args:
        indices: of the prompts that are answered, into `ids`.
        ids: token ids of every prompt.
        new: tokens that are written behind each.
    """
    batches = length_batches([len(ids[i]) + new for i in indices], budget)
    return [[indices[k] for k in batch] for batch in batches]


class Chat:
    """Writes prompts as token ids, by the chat template of the model's tokenizer.

    Strings of special tokens within a message stay text.
    """

    def __init__(self, tokenizer: Any, variables: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._variables = dict(variables)
        added = tokenizer.added_tokens_decoder.items()
        self._special = [str(token) for _, token in added if token.special]
        marks = "\n".join([*THINKING, *THINKING.values()])
        self._unsaid = {i for i, token in added if token.special and str(token) not in marks}
        self.thinking = {
            i: begin for begin in THINKING for i, token in added if begin.startswith(str(token))
        }
        """Tokens that begin thinking, each with the mark that it begins."""
        self._has_system = self._takes_system()
        self.thinks = cut_in_thinking(self._render((("user", "hello"),)))
        """Whether the assistant's turn begins inside its thinking."""

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of the chat, ending where the assistant's turn begins."""
        contents = [content for _, content in prompt.messages]
        if not any(token in content for content in contents for token in self._special):
            return self.ids(self._render(prompt.messages))
        slots = [(role, _SLOT.format(i)) for i, (role, _) in enumerate(prompt.messages)]
        pieces = re.split(_SLOT.format(r"(\d+)"), self._render(slots))  # frame, number, frame, ...
        return [
            token
            for i, piece in enumerate(pieces)
            for token in (self.ids(contents[int(piece)], True) if i % 2 else self.ids(piece))
        ]

    def ids(self, text: str, as_text: bool = False) -> list[int]:
        """Token ids of a text, none added; `as_text` reads special tokens inside it as text."""
        ids: list[int] = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=as_text, verbose=False
        )["input_ids"]
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """What the model wrote, without special tokens other than the marks of its thinking."""
        said = [token for token in ids if token not in self._unsaid]
        return str(self._tokenizer.decode(said, skip_special_tokens=False))

    def _render(self, messages: Sequence[tuple[str, str]]) -> str:
        if not self._has_system and messages[0][0] == "system":
            (_, system), (role, content), *rest = messages
            messages = [(role, f"{system}\n\n{content}"), *rest]
        chat = [{"role": role, "content": content} for role, content in messages]
        rendered = self._tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, **self._variables
        )
        return str(rendered)

    def _takes_system(self) -> bool:
        """Some templates refuse a system message; it then precedes the user's first."""
        from jinja2 import TemplateError

        self._has_system = True
        try:
            return "system-mark" in self._render((("system", "system-mark"), ("user", "hello")))
        except TemplateError:
            return False


def chat_tokenizer(folder: Path, gguf_file: str | None) -> Any:
    """The fast tokenizer of a model that chats.

    Raises:
        ConfigError: it has no chat template.
    """
    from transformers import AutoTokenizer

    gguf = {"gguf_file": gguf_file} if gguf_file else {}
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, use_fast=True, **gguf
    )
    if tokenizer.chat_template is None:
        raise ConfigError(
            f"engine transformers: {gguf_file or folder.name} has no chat template; expected an "
            "instruction-tuned model (its name often ends in Instruct or -it)"
        )
    return tokenizer


def causal_lm(folder: Path, gguf_file: str | None, precision: str, tokenizer: Any) -> Any:
    """The model, dense, set to greedy decoding."""
    import transformers
    from transformers.utils import logging

    options: dict[str, Any] = {"use_safetensors": True}
    if gguf_file is not None:
        options = {"gguf_file": gguf_file}
        if hasattr(transformers, "GgufConfig"):  # packed weights are 3 times slower in bf16 on CPU
            options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=DTYPES[precision], trust_remote_code=False, **options
    ).eval()
    end = model.generation_config.eos_token_id or tokenizer.eos_token_id
    first_end = end[0] if isinstance(end, list) else end
    # The model's own settings would bring sampling and repetition penalties.
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        eos_token_id=end,
        pad_token_id=first_end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )
    return model
