"""What the engine needs and a future transformers may lack costs speed, and not the program."""

import sys

from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.models.loading import load_model
from linkcontext.models.synthetic_images import CHECKED
from linkcontext.records import Turn
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest


def test_without_a_helper_of_transformers_the_models_own_cache_is_used_and_the_reason_is_given(nano, monkeypatch):
    turns, query = [Turn(CHECKED[0], "", "lum")], Turn(CHECKED[1], "", "")
    prompt, answer = (build_messages(turns, SCAFFOLDS["turns"], query, *named) for named in ((), ("dax",)))
    model = load_model(str(nano), device="cpu")
    ((fast,),) = LocalModel(model).score([ScoringRequest(prompt, (answer,))])
    monkeypatch.setitem(sys.modules, "linkcontext.inference.preallocated_layer", None)
    asker = LocalModel(model)
    assert asker.engine == "prefix-cache"
    assert "preallocated_layer" in asker.choice.name_and_reason[1]
    assert "the model's own cache" in asker.choice.name_and_reason[1]
    ((slow,),) = asker.score([ScoringRequest(prompt, (answer,))])
    assert abs(fast[0] - slow[0]) < 1e-4
    assert asker.generate([prompt], 3) == LocalModel(model).generate([prompt], 3)
