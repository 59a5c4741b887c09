"""Environment variables whose values a recipe may send to the server that it names."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from urllib.parse import parse_qsl, urlsplit

from raypipe.config import ConfigError

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


def check_server(
    url: str, variable: str | None, form: str, known: Collection[str] = KNOWN, example: str = ""
) -> None:
    """Refuse an address or the name of a key's variable that would give something secret away.

    Args:
        url: masked or not.
        variable: of the recipe's `api_key_env`.
        form: how an address looks, for the error.
        known: variables that may be sent without the user's leave.
        example: a name of such a variable.

    Raises:
        ValueError: names what is wrong, and the host that a value would have gone to.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url: expected {form} or https://...")
    names = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if "@" in parts.netloc or any(re.search("key|token|secret|sig", name) for name in names):
        raise ValueError(
            "url: it holds a password or a key, which would be stored with the recipe; take it "
            "out and name the environment variable that holds the key in api_key_env"
        )
    if variable is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", variable):
        raise ValueError(
            "api_key_env: expected the name of an environment variable in capitals, such as "
            f"{example or 'OPENAI_API_KEY'}, found something else (not shown, it could be the key "
            "itself)"
        )
    if variable is not None:
        check_allowed(variable, parts.netloc, known, example)


def check_allowed(name: str, host: str, known: Collection[str] = KNOWN, example: str = "") -> None:
    """Refuse to send the value of any other variable: a recipe from elsewhere must not take it.

    Raises:
        ValueError: names the host that the value would have gone to.
    """
    listed = os.environ.get(ALLOW, "").replace(",", " ").split()
    if not name.startswith(OWN) and name not in known and name not in listed:
        expected = (
            f"a name that begins with {OWN}, such as {example}"
            if example
            else "the key of a known engine, such as OPENAI_API_KEY"
        )
        raise ValueError(
            f"api_key_env: expected {expected}, found {name}, whose value would go to {host}; if "
            f"{host} may have it, export {ALLOW}={name}"
        )


def read_key(variable: str | None, whose: str) -> str | None:
    """The key in a variable, read now; None without a variable.

    Args:
        whose: begins the error, such as `engine http`.

    Raises:
        ConfigError: the variable is not set, or holds what no header can.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"{whose}: the environment variable {variable} is not set where this job's driver "
            "runs; export it, or leave api_key_env out for a server without keys"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"{whose}: {variable} holds a line break or a letter that no header can carry; set it "
            "again"
        )
    return key
