"""vLLM gives the figures of the model that is loaded here, for everything that takes a server."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import transformers as hf

from linkcontext.config import eval_config
from linkcontext.errors import InputError
from linkcontext.evaluation.open_model import open_model
from linkcontext.evaluation.runner import probe_grounding, run_evaluation
from linkcontext.models import bundled
from linkcontext.models.saving import save_model

TESTS = Path(__file__).parents[1]
TORCHVISION = Path(sys.prefix) / "torchvision"  # where `make` installs it
# Nats, or a share of a log-probability: a wrong answer of a confident model has -17 nats, of which float32 keeps less.
SAME = {"abs": 1e-3, "rel": 1e-4}


@pytest.fixture
def options(pictures):
    return {"data": str(pictures), "shots": (0, 1, 4), "episodes": 6, "scoring": "both"}


def predictions(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def assert_same(far, here):
    """Two runs have the same predictions, log-probabilities to `SAME`."""
    here, far = predictions(here), predictions(far)
    assert len(far) == len(here) > 0
    for a, b in zip(here, far, strict=True):
        assert (a["query_id"], a["shots_per_class"], a["reply"]) == (b["query_id"], b["shots_per_class"], b["reply"])
        for one, other in zip(a["candidates"], b["candidates"], strict=True):
            assert one["tokens"] == other["tokens"]
            for name in ("logprob", "null_logprob"):
                assert other[name] == pytest.approx(one[name], **SAME)


def run(out, *arguments, torchvision=False):
    """A command in a process of its own; its output."""
    paths = [str(TORCHVISION)] * torchvision + [str(TESTS / "vllm"), str(TESTS), str(TESTS.parent / "src")]
    paths.append(str(TESTS.parent / "recipes" / "mini"))
    script = [str(TESTS / "vllm" / "command.py")] if torchvision else ["-m", "linkcontext"]
    process = subprocess.run(
        [sys.executable, *script, *map(str, arguments), *(("--out", str(out)) if out else ())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


def test_eval(mini_server, options, tmp_path, caplog):
    metrics = run_evaluation(eval_config(model=mini_server.name, out=str(tmp_path / "far"), **options))
    run_evaluation(eval_config(model="mini", out=str(tmp_path / "here"), **options))
    assert_same(tmp_path / "far", tmp_path / "here")
    assert metrics["counters"]["scored"] == "by the log-probabilities that the server gives for the candidates' tokens"
    assert not caplog.text


def test_whole_prompts_give_the_same(mini_server, options, tmp_path, monkeypatch):
    """The slow way, which servers without `logprob_token_ids` get."""
    run_evaluation(eval_config(model=mini_server.name, out=str(tmp_path / "trie"), **options))
    monkeypatch.setattr("linkcontext.scoring.server_abilities._trie_refusal", lambda *_: "it is not wanted")
    metrics = run_evaluation(eval_config(model=mini_server.name, out=str(tmp_path / "whole"), **options))
    assert metrics["counters"]["scored"].endswith("for whole prompts, because it is not wanted")
    assert_same(tmp_path / "trie", tmp_path / "whole")


def test_probe(mini_server, options, tmp_path):
    probed = {**options, "scoring": "likelihood", "shots": (4,)}
    probe_grounding(eval_config(model=mini_server.name, out=str(tmp_path / "far"), **probed))
    probe_grounding(eval_config(model="mini", out=str(tmp_path / "here"), **probed))
    here, far = ((tmp_path / name / "predictions.jsonl").read_text().splitlines() for name in ("here", "far"))
    assert len(here) == len(far) > 100
    for a, b in zip(map(json.loads, here), map(json.loads, far), strict=True):
        assert (a["query_id"], a["shots_per_class"]) == (b["query_id"], b["shots_per_class"])
        scores = [[candidate["logprob"] for candidate in row["candidates"]] for row in (a, b)]
        assert scores[1] == pytest.approx(scores[0], **SAME)


def test_teach_and_ask(mini_server, pictures, tmp_path):
    taught = tmp_path / "taught"
    shutil.copytree(pictures, taught, ignore=shutil.ignore_patterns("*.json*"))
    new = tmp_path / "new"
    new.mkdir()
    for folder in sorted(path for path in taught.iterdir() if path.is_dir())[:3]:
        last = sorted(folder.iterdir())[-1]
        shutil.move(last, new / f"{folder.name}.png")
    run(tmp_path / "zoo.pack", "teach", "--data", taught)
    asked = ["ask", tmp_path / "zoo.pack", *sorted(new.iterdir()), "--json", "--head", "lm"]  # all that a server has
    here, far = run(None, *asked), run(None, *asked, "--model", mini_server.name)
    for a, b in zip(here.splitlines(), far.splitlines(), strict=True):
        one, other = json.loads(a), json.loads(b)  # "none of these" needs image features, which a server does not show
        assert other["probabilities"] == pytest.approx(one["probabilities"], abs=1e-3)


def test_what_train_and_average_save(serve, options, tmp_path):
    """A network that is made here, and not loaded, is saved under the names that vLLM reads as well."""
    run(tmp_path / "run", "train", "--model", "mini-base", "--data", "world:3", "--steps", 2, "--batch", 2)
    run(tmp_path / "mean", "average", "mini-base", tmp_path / "run" / "checkpoint-2")
    with serve(tmp_path / "mean", "mean") as server:
        run_evaluation(eval_config(model=server.name, out=str(tmp_path / "far"), **options))
    run_evaluation(eval_config(model=str(tmp_path / "mean"), out=str(tmp_path / "here"), **options))
    assert_same(tmp_path / "far", tmp_path / "here")


def test_a_siglip_tower_and_too_many_pictures(serve, options, tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "siglip"
    like = hf.AutoConfig.from_pretrained(bundled.folder("mini"))
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    seen = like.vision_config
    like.vision_config = hf.SiglipVisionConfig(**sizes, image_size=seen.image_size, patch_size=seen.patch_size)
    like.vision_feature_select_strategy = "full"
    processor = hf.AutoProcessor.from_pretrained(bundled.folder("mini"))
    processor.num_additional_image_tokens = 0
    save_model(hf.LlavaForConditionalGeneration(like), processor, folder)
    with serve(folder, "siglip", "--limit-mm-per-prompt", '{"image": 5}') as server:
        few = {**options, "shots": (0, 1)}
        run_evaluation(eval_config(model=server.name, out=str(tmp_path / "far"), **few))
        with pytest.raises(InputError, match=r"refuses \(400\): At most 5 image"):
            run_evaluation(eval_config(model=server.name, out=str(tmp_path / "more"), **options))
        assert not (tmp_path / "more").exists()
    run_evaluation(eval_config(model=str(folder), out=str(tmp_path / "here"), **few))
    assert_same(tmp_path / "far", tmp_path / "here")


def test_qwen2_5_vl_and_a_reasoning_parser(serve, pictures, tmp_path):
    if not TORCHVISION.is_dir():
        pytest.skip(f"torchvision is not in {TORCHVISION}, where make test installs it")
    folder, more = tmp_path / "qwen", ["--data", pictures, "--shots", 0, 1, 4, "--episodes", 4]
    paths = [TORCHVISION, TESTS / "vllm", TESTS, TESTS.parent / "src", TESTS.parent / "recipes" / "mini"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, str(TESTS / "vllm" / "save_qwen.py"), str(folder)], env=environment, check=True)
    with serve(folder, "qwen", "--reasoning-parser", "qwen3") as server:
        run(tmp_path / "far", "eval", "--model", server.name, *more)
    run(tmp_path / "here", "eval", "--model", folder, *more, torchvision=True)
    assert_same(tmp_path / "far", tmp_path / "here")


def test_one_of_two_servers_is_killed_and_one_restarts(serve, options, tmp_path, caplog):
    """Every prediction is there once, and those of a run that nothing happened to."""
    many = {**options, "episodes": 40, "shots": (1, 4)}
    mini = bundled.folder("mini")
    with serve(mini, "mini") as first, serve(mini, "mini") as second:
        addresses = ",".join(server.name.removeprefix("openai:").partition("#")[0] for server in (first, second))
        out = tmp_path / "far"
        path, failures = out / "predictions.jsonl", []

        def fault():
            try:
                wait_for(path, 10)
                first.kill()
                wait_for(path, 40)
                second.kill()  # nobody is left
                first.start()
                first.wait()
            except Exception as error:  # noqa: BLE001 - the test fails with it
                failures.append(error)

        thread = threading.Thread(target=fault)
        thread.start()
        run_evaluation(eval_config(model=f"openai:{addresses}#mini", out=str(out), **many))
        thread.join()
        assert not failures
    run_evaluation(eval_config(model="mini", out=str(tmp_path / "here"), **many))
    assert_same(out, tmp_path / "here")
    keys = [(row["query_id"], row["shots_per_class"]) for row in predictions(out)]
    assert len(keys) == len({*keys})
    assert "Trying again" in caplog.text
    assert "answers again" in caplog.text


def wait_for(path, lines):
    """Wait until a file has so many lines."""
    pause = threading.Event()
    for _ in range(3000):
        if path.exists() and path.read_text().count("\n") >= lines:
            return
        pause.wait(0.1)
    raise RuntimeError(f"{path} does not grow")


def test_a_server_that_gives_no_log_probabilities_of_prompts(serve, tmp_path):
    """vLLM refuses `prompt_logprobs` beyond its --max-logprobs; it is only told, nothing is scored wrongly."""
    with serve(bundled.folder("mini"), "mini", "--logprobs-mode", "processed_logprobs") as server:
        model = open_model(eval_config(model=server.name).model)
        able = model._abilities
        assert "differ by" in able.no_trie or able.answers.refusal
