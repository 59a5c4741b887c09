"""A prompt as token ids, by the chat template of its model's tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from raypipe.inference.llm.base import Prompt

_SLOT = "raypipe-slot-{}-"


class Chat:
    """Renders and encodes. Strings of special tokens within a message stay text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self._special = [str(token) for token in added if token.special]
        self._has_system = self._takes_system()

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
        """Without special tokens around it; `as_text` reads those inside it as text."""
        ids: list[int] = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=as_text, verbose=False
        )["input_ids"]
        return ids

    def _render(self, messages: Sequence[tuple[str, str]]) -> str:
        if not self._has_system and messages[0][0] == "system":
            (_, system), (role, content), *rest = messages
            messages = [(role, f"{system}\n\n{content}"), *rest]
        chat = [{"role": role, "content": content} for role, content in messages]
        return str(
            self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        )

    def _takes_system(self) -> bool:
        """Some templates refuse a system message; it then precedes the user's first."""
        from jinja2 import TemplateError

        self._has_system = True
        try:
            return "system-mark" in self._render((("system", "system-mark"), ("user", "hello")))
        except TemplateError:
            return False
