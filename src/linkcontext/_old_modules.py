"""The modules' names of version 0.1. They still import, with a warning, and leave in 0.3.

>>> from linkcontext.evaluate.metrics import chance  # doctest: +SKIP
DeprecationWarning: linkcontext.evaluate.metrics is now linkcontext.evaluation.metrics.
"""

import importlib
import inspect
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGES = {"evaluate": "evaluation", "world": "worlds"}
MODULES = {
    "cli.measure": "cli.evaluate",
    "cli.models": "cli.train",
    "cli.pictures": "cli.data",
    "cli.use": "cli.teach",
    "data.annotated": "data.readers.question_checks",
    "data.conversations": "data.readers.conversations",
    "data.imports": "data.importing",
    "data.jsonfile": "data.readers.json_records",
    "data.pngtext": "data.png_text",
    "data.sources": "data.class_folders",
    "data.upload": "data.uploads",
    "data.vl_icl": "data.readers.vl_icl",
    "episodes.marks": "episodes.special_tokens",
    "episodes.prompt": "episodes.scaffold",
    "episodes.sample": "episodes.link",
    "episodes.subject": "episodes.annotations",
    "episodes.talk": "episodes.questions",
    "evaluate.answers": "evaluation.answers",
    "evaluate.checks": "evaluation.checks",
    "evaluate.choose": "evaluation.support_selection",
    "evaluate.claim": "evaluation.open_run",
    "evaluate.compare": "evaluation.compare",
    "evaluate.draw": "evaluation.draw",
    "evaluate.evidence": "evaluation.grounding.conditions",
    "evaluate.explain": "evaluation.attribution",
    "evaluate.explanation": "evaluation.attribution_file",
    "evaluate.folder": "evaluation.run_dir",
    "evaluate.icl": "evaluation.tasks.world_icl",
    "evaluate.intervals": "evaluation.intervals",
    "evaluate.isekai": "evaluation.tasks.isekai",
    "evaluate.legacy": "evaluation.lcl_metric",
    "evaluate.means": "evaluation.aggregate",
    "evaluate.metrics": "evaluation.metrics",
    "evaluate.picks": "evaluation.example_selection",
    "evaluate.power": "evaluation.power",
    "evaluate.probes": "evaluation.tasks.recall_questions",
    "evaluate.published": "evaluation.published_results",
    "evaluate.question_files": "evaluation.tasks.question_files",
    "evaluate.retention": "evaluation.tasks.retention",
    "evaluate.retention_rows": "evaluation.tasks.retention_rows",
    "evaluate.run": "evaluation.runner",
    "evaluate.validate": "evaluation.validate",
    "evaluate.verdicts": "evaluation.grounding.findings",
    "evaluate.vqa": "evaluation.vqa",
    "mining.neighbours": "data.neighbours",
    "models.attention": "inference.cascade_attention",
    "models.budget": "inference.memory",
    "models.bundle": "models.bundled",
    "models.engine": "inference.engine",
    "models.family": "models.families",
    "models.features": "models.feature_store",
    "models.flamingo": "models.idefics",
    "models.generation": "inference.decoding",
    "models.identity": "scoring.identity",
    "models.load": "models.loading",
    "models.refused": "models.unreadable",
    "models.remote": "scoring.remote",
    "models.score": "scoring.local",
    "models.select": "evaluation.medoids",
    "models.tensorfile": "models.tensor_file",
    "models.tree": "inference.prefix_tree",
    "models.vision": "inference.vision",
    "report.reading": "report.tree_view",
    "teach.access": "serve.access",
    "teach.app": "app.page",
    "teach.cards": "app.html",
    "teach.connection": "serve.connections",
    "teach.desk": "serve.worker",
    "teach.header": "teach.pack_header",
    "teach.intake": "serve.intake",
    "teach.recognise": "teach.recogniser",
    "teach.runs": "app.runs",
    "teach.seal": "teach.pack_seal",
    "teach.serve": "serve.server",
    "teach.session": "app.session",
    "teach.shelf": "serve.prefix_cache",
    "teach.wire": "serve.openai_protocol",
    "train.preset": "train.estimate",
    "train.strategy": "train.samplers",
    "train.trainee": "train.model",
    "world.concepts": "worlds.concepts",
    "world.folder": "worlds.folder",
    "world.isekai": "worlds.isekai",
    "world.names": "worlds.pseudo_words",
    "world.questions": "worlds.questions",
    "world.render": "worlds.render",
    "world.scenes": "worlds.scenes",
}


# Classes and functions that have another name or place now and are called as before.
NAMES = {
    "data.annotated.Asked": "data.reader.ImportedQuestion",
    "data.annotated.checked": "data.readers.question_checks.check_question",
    "data.annotated.once": "data.readers.question_checks.unique_id",
    "data.annotated.seed": "data.readers.seed_bench.read_seed_bench",
    "data.annotated.visual_genome": "data.readers.visual_genome.read_visual_genome",
    "data.annotated.vl_checklist": "data.readers.vl_checklist.read_vl_checklist",
    "data.conversations.conversation": "data.readers.conversations.conversation_from_record",
    "data.conversations.conversations": "data.readers.conversations.read_conversations",
    "data.conversations.of": "data.conversation.make_conversation",
    "data.conversations.write_conversations": "data.writers.write_conversations",
    "data.imports.Imported": "data.importing.ImportReport",
    "data.imports.beside": "data.picture_paths.possible_paths",
    "data.imports.imported": "source.import_files",
    "data.jsonfile.get": "data.readers.json_records.require_value",
    "data.jsonfile.records": "data.readers.json_records.read_records",
    "data.jsonfile.under": "data.readers.json_records.read_key",
    "data.jsonfile.word": "data.readers.json_records.require_text",
    "data.sources.annotations": "data.manifest.annotation_digest",
    "data.sources.digest": "data.manifest.digest",
    "data.sources.open_digits": "data.digits.open_digits",
    "data.sources.open_huggingface": "data.hub.open_huggingface",
    "data.vl_icl.vl_icl": "data.readers.vl_icl.read_vl_icl",
    "episodes.prompt.Tokens": "episodes.render.Tokens",
    "episodes.prompt.prompt": "episodes.scaffold.build_messages",
    "episodes.prompt.scaffold": "episodes.scaffold.load_scaffold",
    "episodes.subject.Asked": "episodes.annotations.Annotation",
    "episodes.subject.all_of": "episodes.annotations.all_annotations",
    "episodes.subject.asked": "episodes.annotations.questions_about",
    "episodes.subject.different": "episodes.annotations.count_different",
    "episodes.subject.draw": "episodes.annotations.draw_annotation",
    "episodes.subject.is_left": "episodes.annotations.has_untaken",
    "episodes.talk.Talks": "episodes.questions.TaskSampler",
    "evaluate.claim.refuse_other": "evaluation.open_run.check_same_measurement",
    "evaluate.claim.refuse_other_records": "evaluation.open_run.check_same_records",
    "evaluate.draw.drawn": "evaluation.draw.draw_configured",
    "evaluate.folder.flat": "evaluation.run_dir.flatten_options",
    "evaluate.folder.measured_apart": "evaluation.run_dir.measurement_differences",
    "evaluate.folder.options_apart": "evaluation.run_dir.option_differences",
    "evaluate.metrics.available": "evaluation.metrics.available_scorings",
    "evaluate.metrics.by_place": "evaluation.metrics.accuracy_by_position",
    "evaluate.metrics.choose": "evaluation.metrics.chosen_class",
    "evaluate.metrics.favourites": "evaluation.metrics.best_candidates",
    "evaluate.metrics.only_place": "evaluation.metrics.support_position",
    "evaluate.metrics.rows": "evaluation.metrics.metric_rows",
    "evaluate.run.evaluate": "evaluation.runner.run_evaluation",
    "mining.neighbours.checked": "data.neighbours.check_weights",
    "mining.neighbours.listed": "data.neighbours.neighbour_lists",
    "mining.neighbours.made_file": "data.neighbours.provenance_file",
    "mining.neighbours.read_made": "data.neighbours.read_provenance",
    "mining.neighbours.sheet": "data.neighbours.draw_sheet",
    "models.bundle.pack": "models.bundled.write_bundle",
    "models.load.Model": "models.model.Model",
    "models.load.Template": "models.chat_template.ChatTemplate",
    "models.load.load": "models.loading.load_model",
    "models.remote.Remote": "scoring.remote.RemoteModel",
    "models.remote.connect": "scoring.connection.connect",
    "models.score.Ask": "scoring.protocol.ScoringRequest",
    "models.score.Scorer": "scoring.local.LocalModel",
    "models.tree.Tree": "inference.prefix_tree.PrefixTree",
    "models.vision.nearest": "evaluation.nearest.nearest",
    "teach.serve.Endpoint": "serve.endpoint.Endpoint",
    "world.concepts.draw": "worlds.concepts.draw_concepts",
    "world.folder.save": "worlds.folder.save_picture",
    "world.folder.told_of": "worlds.folder.facts_json",
    "world.folder.write": "worlds.folder.write_world",
    "world.names.random_string": "episodes.names.random_string",
    "world.names.shown_names": "episodes.names.shown_names",
    "world.questions.about": "worlds.questions.attribute_questions",
    "world.render.draw": "worlds.render.draw_instances",
    "world.scenes.about": "worlds.scenes.thing_questions",
}

# Functions that have left a module of the same name.
MOVED = {
    f"records.{name}": f"jsonl.{name}"
    for name in ("appending", "from_dict", "parse_json", "read_json", "read_jsonl", "to_json", "typed", "write_jsonl")
}


class OldModules(MetaPathFinder, Loader):
    """Finds a module under its old name, as a module whose attributes are those of the new one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the old modules and packages of the tables, and nothing else."""
        old = fullname.removeprefix("linkcontext.")
        if fullname == old or old not in {**MODULES, **PACKAGES}:
            return None
        return ModuleSpec(fullname, self, is_package=old in PACKAGES)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return an empty module; `exec_module` gives it the attributes of the new one."""
        return _Evaluate(spec.name) if spec.name == "linkcontext.evaluate" else ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Import the module of the new name, and warn whoever imports the old one."""
        old = module.__name__.removeprefix("linkcontext.")
        new = importlib.import_module(f"linkcontext.{MODULES.get(old) or PACKAGES[old]}")
        if old in MODULES:
            warnings.warn(
                f"{module.__name__} is now {new.__name__}. The old name will be removed in linkcontext 0.3.",
                DeprecationWarning,
                stacklevel=2,
            )
        if isinstance(module, _Evaluate):
            module.document()
        module.__dict__["__getattr__"] = lambda name: _attribute(old, new, name)


class _Evaluate(ModuleType):
    """The old package `evaluate`, which an import puts in the place of the function of that name: it can be called."""

    def document(self) -> None:
        """Take the documentation and the signature of the function."""
        function = importlib.import_module("linkcontext.api").evaluate
        self.__doc__, self.__dict__["__signature__"] = function.__doc__, inspect.signature(function)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call `linkcontext.evaluate`."""
        return importlib.import_module("linkcontext.api").evaluate(*args, **options)


def _attribute(old: str, new: ModuleType, name: str) -> Any:
    if place := NAMES.get(f"{old}.{name}"):
        module, _, name = place.rpartition(".")
        new = importlib.import_module(f"linkcontext.{module}")
    return getattr(new, name)


def moved(module: str, name: str) -> Any:
    """The function of `MOVED` that the module had in 0.1, with a warning. Raises `AttributeError` for other names."""
    place = MOVED.get(f"{module.removeprefix('linkcontext.')}.{name}")
    if place is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    new_module, _, new_name = place.rpartition(".")
    warnings.warn(
        f"{module}.{name} is now linkcontext.{place}. The old name will be removed in linkcontext 0.3.",
        DeprecationWarning,
        stacklevel=3,
    )
    return getattr(importlib.import_module(f"linkcontext.{new_module}"), new_name)


def install() -> None:
    """Let old names be imported, once in a process."""
    if not any(isinstance(finder, OldModules) for finder in sys.meta_path):
        sys.meta_path.append(OldModules())
