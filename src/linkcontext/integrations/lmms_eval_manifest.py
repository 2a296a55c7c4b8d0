"""What lmms-eval finds by the entry point `lmms_eval.models`: its model `linkcontext`."""

from lmms_eval.models.registry_v2 import ModelManifest

_MODULE = "linkcontext.integrations.lmms_eval_model"
# lmms-eval takes the chat model, and with --force_simple the simple one, which also scores likelihoods.
MANIFEST = ModelManifest(
    "linkcontext", simple_class_path=f"{_MODULE}.LmmsSimpleModel", chat_class_path=f"{_MODULE}.LmmsChatModel"
)
