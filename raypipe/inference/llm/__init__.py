"""Engines: where a language model runs, and how prompts become answers."""

from typing import Annotated

from pydantic import Field

from raypipe.inference.llm.http import HttpEngine
from raypipe.inference.llm.local import TransformersEngine
from raypipe.inference.llm.vllm import VllmEngine

AnyEngine = Annotated[TransformersEngine | HttpEngine | VllmEngine, Field(discriminator="type")]
"""Adding an engine: one class with `identity`, `check` and `build` or `open`, and its name here."""
