"""Texts that are drawn: from a distribution, by a seed that no other text of the batch changes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from raypipe.inference.llm.base import Prompt, Sampling
from raypipe.inference.llm.drawing import drawing, nucleus
from raypipe.inference.llm.http import HttpEngine
from raypipe.inference.llm.local import TransformersEngine


def logits(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def test_a_nucleus_keeps_the_likeliest_tokens_up_to_their_share():
    kept = nucleus(logits(0.2, 0.5, 0.3), 0.6)
    assert torch.isfinite(kept).tolist() == [False, True, True]
    assert torch.isfinite(nucleus(logits(0.2, 0.5, 0.3), 0.01)).tolist() == [False, True, False]
    assert torch.equal(nucleus(logits(0.2, 0.8), 1.0), logits(0.2, 0.8))


def test_tokens_are_drawn_from_the_distribution_at_its_temperature():
    rows = [Sampling(0.5, 1.0, seed) for seed in range(3000)]
    (noise,) = drawing(rows, 0, None)["logits_processor"]
    scores = logits(0.2, 0.3, 0.5).expand(3000, 3)
    drawn = Counter(noise(torch.empty(3000, 0), scores).argmax(-1).tolist())
    squared = [0.04, 0.09, 0.25]  # temperature 1/2 squares the probabilities
    expected = [value / sum(squared) for value in squared]
    assert [drawn[i] / 3000 for i in range(3)] == pytest.approx(expected, abs=0.03)


def test_a_text_depends_on_its_own_seed_only(tiny_llm):
    model = TransformersEngine(model=str(tiny_llm), context_tokens=256).build("cpu", "fp32")

    def prompt(text: str, seed: int) -> Prompt:
        return Prompt((("user", text),), sampling=Sampling(1.0, 1.0, seed))

    greedy = Prompt((("user", "what is B"),))
    several = [prompt("what is A", 1), prompt("what is A", 2), greedy, prompt("a user of it", 3)]
    one, two, plain, other = (answer.text for answer in model(several, 12))
    assert one != two
    assert [answer.text for answer in model([several[3], several[0]], 12)] == [other, one]
    assert model([greedy], 12)[0].text == plain != model([prompt("what is B", 1)], 12)[0].text


def test_a_text_may_end_with_its_first_line():
    texts = {1: "\n\nwhat", 2: "what is", 3: "what\nis"}
    rows = [Sampling(1, 1, 0, one_line=True)] * 3 + [None]
    (ends,) = drawing(rows, 1, lambda ids: texts[ids[0]])["stopping_criteria"]
    ids = torch.tensor([[0, 1], [0, 2], [0, 3], [0, 3]])
    assert ends(ids, None).tolist() == [False, False, True, False]


def test_greedy_batches_draw_nothing():
    assert drawing([None, None], 3, str) == {}


def test_a_service_gets_temperature_and_top_p():
    engine = HttpEngine(url="http://127.0.0.1:1/v1", model="m", temperature=0.0)
    body = engine.body(Prompt((("user", "x"),), sampling=Sampling(0.8, 0.9, 1)), 5)
    assert (body["temperature"], body["top_p"]) == (0.8, 0.9) and "seed" not in body
    assert "top_p" not in engine.body(Prompt((("user", "x"),)), 5)
    plain = engine.replace(temperature=None).body(Prompt((), sampling=Sampling(0.8, 0.9, 1)), 5)
    assert not {"temperature", "top_p"} & plain.keys()
