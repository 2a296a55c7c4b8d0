"""What a pack taught, asked of a model behind a server."""

import json
import shutil

import pytest

from linkcontext.cli import main
from linkcontext.errors import InputError
from linkcontext.scoring.connection import connect
from linkcontext.scoring.remote import RemoteModel
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import read_pack, write_pack
from linkcontext.teach.remote_learner import RemoteLearner


def test_a_server_answers_as_the_model_does_here(mini, mini_url, tmp_path, capsys):
    dataset = open_data("world:3")
    classes = list(dataset.by_class().values())
    named = {"lum": classes[0], "dax": classes[5]}
    for name, items in named.items():
        for item in items[:2]:
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copy(dataset.path(item.id), tmp_path / name)
    learner = Learner(mini)
    learner.teach({name: sorted((tmp_path / name).iterdir()) for name in named})
    pack = write_pack(learner, tmp_path / "two.pack")
    picture = dataset.path(classes[0][9].id)
    far, here = RemoteLearner(pack, RemoteModel(connect(f"openai:{mini_url}#mini"))), read_pack(pack.path).learner(mini)
    here.restore(name_bias=[0.0, 0.0])  # a server is not asked for it
    assert far.ask(picture).probabilities == pytest.approx(here.ask(picture).probabilities, abs=1e-3)
    assert far.say(picture) == here.say(picture)
    main(["ask", str(pack.path), str(picture), "--model", f"openai:{mini_url}#mini", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["nearest"]) == (far.ask(picture).name, [])
    with pytest.raises(SystemExit):
        main(["ask", str(pack.path), str(picture), "--model", f"openai:{mini_url}#mini", "--dtype", "float16"])
    assert "--dtype: the server of" in capsys.readouterr().err
    next((tmp_path / "lum").iterdir()).unlink()
    with pytest.raises(InputError, match="1 of 4 are gone or have changed"):
        RemoteLearner(pack, RemoteModel(connect(f"openai:{mini_url}#mini")))
