"""Names from all of Unicode, with those that have gone astray somewhere among them."""

from __future__ import annotations

from hypothesis import strategies as st
from markdown_it import MarkdownIt

SEEN = [
    *("..", "a/../../..", "../../../x", "/abs", ".", "a//b", "~", "C:\\x", "a\\..\\b"),
    *("first pass", "$x{", "$a$", "[/red]", "[bold]x", "a\n# b", "a\u2028b", "\x00", "\x1b[31m"),
    *("\ud800", "\udc00x", "\ufffe", "\u202eexe", "a\u200bb", "con", "NUL.txt", "Default"),
    *("_x", "a|b", "a\\|b", "`x", "<b>", "&amp;", "[x](y)", "1. x", "- x", "#", "C #", "~~a~~"),
    *("x" * 300, "\N{SNOWMAN}" * 100, "oracle", " -> ", "a, b", "caf\xe9", "日本語", "👩\u200d🔬"),
    *("%2e%2e", "a#b?c%", "{title}", "</svg>", "]]>", "--", "* x *", "\\", "a:b", "=", "\xa0"),
]
PLAIN = ["contrastive", "DL 2019", "margin_mse", "MiniLM | mnrl > kl", "v1.5", "kd/listnet", "é-1"]
"""Names of today's recipes, which every place shows as they are."""

characters = st.characters(exclude_categories=())
names = st.one_of(
    st.sampled_from(SEEN),
    st.lists(st.one_of(characters, st.sampled_from(SEEN)), min_size=1, max_size=6).map("".join),
)


def markdown_blocks(text: str) -> list[tuple[str, str, set[str]]]:
    """Every block of GitHub's Markdown: its kind, its text, and the kinds of markup in it."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(text)
    return [
        (
            tokens[i - 1].tag,
            "".join(child.content for child in token.children),
            {child.type for child in token.children} - {"text", "text_special"},
        )
        for i, token in enumerate(tokens)
        if token.type == "inline"
    ]
