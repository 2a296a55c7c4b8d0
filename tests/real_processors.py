"""Tiny networks of real classes with their real processors, which need torchvision: scores and replies on every engine
that serves a family, against whole prompts.

`python tests/real_processors.py PICTURES [FAMILY ...]` prints a JSON object with what `scoring/test_real_processors.py`
asserts, and `--table` a row of docs/tree.md for each family. It is a process of its own because torchvision is
installed apart from the environment of the other tests.
"""

import copy
import json
import logging
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch

warnings.filterwarnings("ignore")

import torchvision_operators  # noqa: F401 - before transformers looks for torchvision
import transformers as hf
from real_families import FAMILIES

from linkcontext.data.images import open_image
from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.families import wrap_processor
from linkcontext.models.image_processors import with_options
from linkcontext.models.model import Model
from linkcontext.models.picture_options import PictureOptions
from linkcontext.records import Turn
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.train.mixture import Example
from linkcontext.train.model import Trainee, read, train_parts

MOST = 6000  # pixels of reduced pictures; one of the queries has more
SMALLEST = {"mistral3": 28}  # pixels: smaller pictures are refused


def requests(pictures):
    """Three shot counts, a query of each shape, two candidates, of which one begins with the other."""
    support = [Turn(pictures[0], "", "lum"), Turn(pictures[1], "", "dax"), Turn(pictures[2], "", "dax")]
    made = []
    for shots in (0, 1, 3):
        for picture in pictures[3:]:
            query = Turn(picture, "", "")
            answers = (build_messages(support[:shots], SCAFFOLDS["turns"], query, name) for name in ("dax", "dax lum"))
            made.append(ScoringRequest(build_messages(support[:shots], SCAFFOLDS["turns"], query), tuple(answers)))
    return made


def flat(scores):
    """float32[answers]: the scores of all requests."""
    return torch.tensor([value for row in scores for value, _ in row])


def reduced(model, sources, requested):
    """The same with reduced pictures: how far scores are apart, and how many tokens the longest prompt has, before and
    after. `requested` are a few requests."""
    options, processor = PictureOptions(max_pixels=MOST), copy.deepcopy(model.processor)
    processor.image_processor = with_options(processor.image_processor, options)
    smaller = replace(model, processor=processor, pictures=options)
    usual, whole, scorer = (
        LocalModel(m, VisionEncoder(m, open_image), sources, 1, engine)
        for m, engine in ((model, "reference"), (smaller, "reference"), (smaller, "auto"))
    )
    apart = float((flat(scorer.score(requested)) - flat(whole.score(requested))).abs().max())
    return apart, [max(run.length(request.messages) for request in requested) for run in (usual, whole, scorer)]


def learnt(model, sources):
    """How far loss and gradient of a training example are from those of whole prompts, relative to the largest."""
    items = list(sources)
    turns = [Turn(items[0], "", "lum"), Turn(items[1], "", "dax")]
    conversations = [
        build_messages(turns, SCAFFOLDS["turns"], Turn(item, "", ""), name)
        for item, name in zip(items[2:4], ("dax", "lum"), strict=True)
    ]
    example = read(Example("one", tuple(conversations), sources), model.chat_template)
    train_parts(model.network, ("language", "projector"), 0, "", 0)
    results = []
    for why in (None, "for comparison"):
        model.network.zero_grad()
        trainee = Trainee(model, why)
        trainee.eyes.use_disk = False
        cost, _ = trainee([example])
        cost.backward()
        gradients = {key: p.grad.clone() for key, p in model.network.named_parameters() if p.grad is not None}
        results.append({"": cost.detach(), **gradients})
    own, whole = results
    assert own.keys() == whole.keys()
    return max(float((own[key] - value).abs().max() / (value.abs().max() + 1e-3)) for key, value in whole.items())


def compared(name, folder):
    """How a family is served, and how far its scores and replies are from those of whole prompts."""
    network, processor = FAMILIES[name]()
    model = Model(name, name, network, wrap_processor(processor))
    paths = [path for path in sorted(folder.glob("*.png")) if min(open_image(path).size) >= SMALLEST.get(name, 0)]
    sources = {path.stem: (path.stem * 8, path) for path in paths}
    requested = requests(list(sources))
    prompts = [request.messages for request in requested]
    whole = LocalModel(model, VisionEncoder(model, open_image), sources, 1, "reference")
    scores, replies = flat(whole.score(requested)), whole.generate(prompts, 6)
    scorer = LocalModel(model, VisionEncoder(model, open_image), sources, 1)
    runs = [scorer]
    if scorer.choice.against_trees is None:
        runs.append(LocalModel(model, scorer.eyes, sources, 1, "tree"))
    apart = max(float((flat(run.score(requested)) - scores).abs().max()) for run in runs)
    same = all(run.generate(prompts, 6) == replies for run in runs)
    # The queries behind the longest support, on its prefilled prefix.
    longest = [number for number, messages in enumerate(prompts) if len(messages) == len(prompts[-1])]
    prefix = scorer.prefill([prompts[number] for number in longest])
    if prefix is not None:
        held = flat(scorer.score(requested[longest[0] :], prefix))
        apart = max(apart, float((held - scores[-len(held) :]).abs().max()))
        same &= scorer.generate([prompts[number] for number in longest], 6, prefix) == replies[longest[0] :]
    return {
        "engine": scorer.engine,
        "own_cache": scorer.choice.own_cache,
        "reason": scorer.choice.name_and_reason[1],
        "apart": apart,
        "spread": float(scores.std()),
        "replies": same,
        "reduced": reduced(model, sources, requested[-2:]),
        "learnt": learnt(model, sources) if scorer.choice.against_trees is None else 0.0,
    }


def row(name, family):
    """A family's row in the table of docs/tree.md."""
    engine = "own cache" if family["own_cache"] else family["engine"]
    return f"| {name} | {engine} | {family['apart']:.1e} | {family['reason']} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    hf.logging.set_verbosity_error()
    logging.getLogger("linkcontext").setLevel(logging.ERROR)
    arguments = [argument for argument in sys.argv[1:] if argument != "--table"]
    chosen = arguments[1:] or list(FAMILIES)
    results = {name: compared(name, Path(arguments[0])) for name in chosen}
    if "--table" in sys.argv:
        print("\n".join(row(name, family) for name, family in results.items()))
    print(json.dumps(results))
