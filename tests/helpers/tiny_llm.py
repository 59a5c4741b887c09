"""What the tests' tiny language model was made from."""

from __future__ import annotations

LLM_TEXT = "the Yes and No of A or B is what a user asks an assistant about ranking passages"


CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
