"""What a training prepares: which parameters decay, and at which rate each part learns."""

from linkcontext.models.loading import load_model
from linkcontext.train.model import Trainee, train_parts
from linkcontext.train.setup import make_optimizer


def test_gains_and_biases_do_not_decay(nano, config):
    model = load_model(str(nano), device="cpu")
    train_parts(model.network, ("projector", "language"), 0, "", 0)
    groups = make_optimizer(Trainee(model), config(weight_decay=0.1, lr=2e-3, projector_lr=5e-4)).param_groups
    decay_of = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    learning = [p for p in model.network.parameters() if p.requires_grad]
    assert decay_of.keys() == {id(p) for p in learning}
    assert {(p.ndim > 1, decay_of[id(p)]) for p in learning} == {(True, 0.1), (False, 0.0)}
    assert {group["name"]: group["peak"] for group in groups} == {"language": 2e-3, "projector": 5e-4}
