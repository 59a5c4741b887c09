"""Environment variables whose values a recipe may send to the server that it names."""

from __future__ import annotations

import os

ALLOW = "RAYPIPE_ALLOW_ENV"
"""The environment variable with further names, separated by commas or blanks."""
OWN = "RAYPIPE_"
"""Variables of this prefix are meant for recipes."""
KNOWN = frozenset(
    {
        *("ANTHROPIC_API_KEY", "ANYSCALE_API_KEY", "AZURE_OPENAI_API_KEY", "CEREBRAS_API_KEY"),
        *("COHERE_API_KEY", "DEEPINFRA_API_KEY", "DEEPSEEK_API_KEY", "FIREWORKS_API_KEY"),
        *("GEMINI_API_KEY", "GOOGLE_API_KEY", "GROQ_API_KEY", "LITELLM_API_KEY", "LLM_API_KEY"),
        *("MISTRAL_API_KEY", "NVIDIA_API_KEY", "OLLAMA_API_KEY", "OPENAI_API_KEY"),
        *("OPENROUTER_API_KEY", "PERPLEXITY_API_KEY", "SAMBANOVA_API_KEY", "TOGETHER_API_KEY"),
        *("VLLM_API_KEY", "XAI_API_KEY"),
    }
)
"""Keys of engines alone. HF_TOKEN is not among them: it opens more than an engine."""


def check_allowed(name: str, host: str) -> None:
    """Refuse to send the value of any other variable: a recipe from elsewhere must not take it.

    Raises:
        ValueError: names the host that the value would have gone to.
    """
    listed = os.environ.get(ALLOW, "").replace(",", " ").split()
    if not name.startswith(OWN) and name not in KNOWN and name not in listed:
        raise ValueError(
            f"api_key_env: expected the key of a known engine, such as OPENAI_API_KEY, found "
            f"{name}, whose value would go to {host}; if {host} may have it, export {ALLOW}={name}"
        )
