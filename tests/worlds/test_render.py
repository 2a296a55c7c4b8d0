"""Drawing: a pure function of concept and instance, whatever stands beside them in a batch."""

import torch

from linkcontext.worlds import concepts, render


def some(count=24, size=32):
    things, instances = concepts.draw_concepts(count, "r"), render.draw_instances(count, "r")
    return things, instances, render.render(things, instances, size)


def test_shape_and_type():
    *_, pictures = some(5, 40)
    assert pictures.shape == (5, 40, 40, 3)
    assert pictures.dtype == torch.uint8


def test_a_picture_is_the_same_alone_in_a_batch_and_in_any_order():
    things, instances, together = some()
    alone = torch.cat([render.render(things[i : i + 1], instances[i : i + 1], 32) for i in range(len(things))])
    assert torch.equal(alone, together)
    back = torch.arange(len(things) - 1, -1, -1)
    assert torch.equal(render.render(things[back], instances[back], 32)[back], together)
    assert torch.equal(render.render(things, instances, 32, chunk=7), together)


def test_instances_of_a_concept_differ_and_concepts_differ():
    things, instances, _ = some(4)
    one = render.render(things[:1].expand(4, -1), instances, 32).float()
    assert min(float((one[0] - one[i]).abs().mean()) for i in (1, 2, 3)) > 5
    same_instance = render.render(things, instances[:1].expand(4, -1), 32).float()
    assert min(float((same_instance[0] - same_instance[i]).abs().mean()) for i in (1, 2, 3)) > 1


def test_a_red_thing_on_white_is_red_in_the_middle():
    thing = torch.full((1, concepts.LENGTH), 0.01)  # creature, red plain circle in the middle
    instance = torch.full((1, render.LENGTH), 0.5)
    instance[0, render.SLOTS["ground"]] = 0.0  # white
    instance[0, render.SLOTS["distractor"]] = 0.9  # none
    instance[0, render.SLOTS["noise"]] = 0.0
    picture = render.render(thing, instance, 33)[0]
    red, green, blue = (int(v) for v in picture[16, 16])
    assert red > 150
    assert max(green, blue) < 90
    assert int(picture[1, 16].min()) > 180


def test_the_resolution_changes_the_detail_not_the_picture():
    things, instances, small = some(8, 32)
    large = render.render(things, instances, 96).float().view(8, 32, 3, 32, 3, 3).mean((2, 4))
    noise_free = (large - small.float()).abs().mean((1, 2, 3))
    assert float(noise_free.median()) < 20
