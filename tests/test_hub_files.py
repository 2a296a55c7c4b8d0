"""Packs and tuned models to a hub and back, against a stand-in of its HTTP API on this machine."""

import json
import shutil

import pytest
from hub_stand_in import Hub, serving_hub
from huggingface_hub import constants

import linkcontext
from linkcontext.errors import InputError
from linkcontext.hub_files import download_files, upload_folder
from linkcontext.models.hub import hub_failure

TOKEN = "hf_write"
# The library of the hub sends large files in a way that its own HTTP client calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    stand_in = Hub(TOKEN)
    with serving_hub(stand_in) as url:
        for name, value in {
            "ENDPOINT": url,
            "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # an earlier test's asks the hub of its own time
        monkeypatch.delenv("HF_TOKEN", raising=False)
        stand_in.url = url
        hub_failure.cache_clear()  # another test may have asked without a network
        yield stand_in
        hub_failure.cache_clear()


@pytest.fixture
def learner(nano, pictures, tmp_path):
    """Taught with pictures in a folder that the test may remove."""
    made = linkcontext.load(nano, device="cpu")
    for folder in sorted(folder for folder in pictures.iterdir() if folder.is_dir())[:2]:
        shutil.copytree(folder, tmp_path / "secret-place" / folder.name)
    made.teach(tmp_path / "secret-place")
    return made


def published(hub, repo="me/zoo"):
    return hub.at(repo, "main")[1]


def test_a_folder_goes_there_and_back(hub, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("text")
    (tmp_path / "out" / "b.pack").write_bytes(b"large")
    address = upload_folder(tmp_path / "out", "me/zoo", True, TOKEN, "first")
    assert address.startswith(f"{hub.url}/me/zoo/commit/")
    assert published(hub) == {"a.txt": b"text", "b.pack": b"large"}
    assert hub.private["me/zoo"]
    (tmp_path / "out" / "a.txt").write_text("changed")
    upload_folder(tmp_path / "out", "me/zoo", None, TOKEN, "second")
    folder = download_files("me/zoo", ["*.txt"], None, TOKEN)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.txt": "changed"}
    first = download_files("me/zoo", ["a.txt"], address.rpartition("/")[2], TOKEN)
    assert (first / "a.txt").read_text() == "text"


def test_what_goes_wrong_at_the_hub_is_a_sentence(hub, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError, match=r"refused \(401\). Log in with `hf auth login`"):
        upload_folder(tmp_path, "me/zoo", None, "hf_wrong", "m")
    upload_folder(tmp_path, "me/zoo", True, TOKEN, "m")
    for repo, revision, token, why in (
        ("me/zoo", None, None, "no such repository, or it is private"),
        ("me/nothing", None, TOKEN, "no such repository"),
        ("me/zoo", "v9", TOKEN, "no such revision"),
        ("a b/c/d", None, TOKEN, "Write OWNER/NAME"),
    ):
        with pytest.raises(InputError, match=why):
            download_files(repo, ["*"], revision, token)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        upload_folder(tmp_path, "me/zoo", None, TOKEN, "m")


def test_a_pack_with_its_pictures_is_taught_again_by_who_fetches_it(hub, learner, nano, pictures, tmp_path):
    query = sorted(pictures.glob("*/*.png"))[-1]
    before = learner.ask(query)
    learner.save(tmp_path / "zoo.pack")
    linkcontext.Pack.open(tmp_path / "zoo.pack").push_to_hub("me/zoo", with_pictures=True, token=TOKEN)
    files = published(hub)
    assert len([path for path in files if path.startswith("pictures/")]) == 16
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: linkcontext\n")
    assert all(f"- {name}: 8 pictures" in card for name in learner.pictures.names)
    assert not [path for path, content in files.items() if b"secret-place" in content]
    shutil.rmtree(tmp_path / "secret-place")
    pack = linkcontext.Pack.from_pretrained("me/zoo", token=TOKEN)
    assert not pack.trusted
    again = linkcontext.Learner.load(pack, model=nano, device="cpu")
    assert again.ask(query).probabilities == pytest.approx(before.probabilities, abs=1e-4)
    assert linkcontext.Pack.from_pretrained("me/zoo", token=TOKEN).path == pack.path  # fetched once


def test_a_pack_without_its_pictures_needs_trust(hub, learner, pictures, tmp_path):
    query = sorted(pictures.glob("*/*.png"))[-1]
    before = learner.ask(query)
    learner.save(tmp_path / "zoo.pack")
    pack = linkcontext.Pack.open(tmp_path / "zoo.pack")
    pack.push_to_hub("me/zoo", token=TOKEN)
    assert set(published(hub)) == {"linkcontext.pack", "README.md"}
    assert "trust=True" in published(hub)["README.md"].decode()
    with pytest.raises(InputError, match="16 of 16 were taught without a file"):
        linkcontext.Pack.from_pretrained("me/zoo").learner(learner.model)
    trusted = linkcontext.Pack.from_pretrained("me/zoo", trust=True).learner(learner.model)
    assert trusted.ask(query).probabilities == pytest.approx(before.probabilities, abs=1e-4)
    shutil.rmtree(tmp_path / "secret-place")
    with pytest.raises(InputError, match="16 of 16 are gone"):
        pack.push_to_hub("me/zoo", with_pictures=True, token=TOKEN)


def test_a_tuned_model_is_pushed_from_its_training_and_loaded(hub, nano, tmp_path, monkeypatch):
    checkpoint = tmp_path / "run" / "checkpoint-40"
    shutil.copytree(nano, checkpoint)
    (checkpoint / "training.safetensors").write_bytes(b"the optimizer's state")
    (tmp_path / "run" / "latest").write_text("checkpoint-40\n")
    about = {"command": "linkcontext train --data digits", "model": {"name": "some/base"}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(about))
    linkcontext.push_to_hub(tmp_path / "run", "me/tuned", token=TOKEN)
    files = published(hub, "me/tuned")
    assert "training.safetensors" not in files
    card = files["README.md"].decode()
    for line in (
        "base_model: some/base",
        "library_name: transformers",
        "`linkcontext train --data digits`, to checkpoint-40",
    ):
        assert line in card
    loaded, local = linkcontext.load("me/tuned", device="cpu"), linkcontext.load(nano, device="cpu")
    assert loaded.model.loaded.identity == local.model.loaded.identity
    with pytest.raises(InputError, match=r"has no linkcontext.pack. A model is loaded with linkcontext.load"):
        linkcontext.Pack.from_pretrained("me/tuned")


def test_a_folder_without_a_model_is_not_pushed(tmp_path):
    with pytest.raises(InputError, match="no model"):
        linkcontext.push_to_hub(tmp_path, "me/tuned")
    with pytest.raises(InputError, match="no such folder"):
        linkcontext.push_to_hub(tmp_path / "nowhere", "me/tuned")
