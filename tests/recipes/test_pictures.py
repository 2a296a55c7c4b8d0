"""The pure parts of `recipes/mini/pictures.py`: nothing here needs a network or the recipes' packages."""

import json

import numpy as np
import pictures
import pytest
from fontTools import unicodedata
from picture_sources import clipart, fonts, furniture, icon_names, icon_paint, iconify, scripts, store, variety
from picture_sources.exclude import licence_allows, why_excluded
from picture_sources.mesh import Material, Mesh, read_obj
from picture_sources.render import Light, camera, rasterise, render
from PIL import Image

from linkcontext.seeds import rng

# What is left out


@pytest.mark.parametrize("licence", ["MIT", "ISC", "Apache-2.0", "CC0-1.0", "CC-BY-4.0", "OFL-1.1"])
def test_licences_that_ask_for_attribution_at_most_are_used(licence):
    assert licence_allows(licence)


@pytest.mark.parametrize("licence", ["CC-BY-SA-4.0", "CC-BY-NC-4.0", "GPL-3.0-or-later", "", None])
def test_other_licences_and_unknown_ones_are_not(licence):
    assert not licence_allows(licence)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("arrow left", None),
        ("apple", None),
        ("calendar 31", "shows digits"),
        ("list numbered", "shows digits"),
        ("a large", "shows letters"),
        ("sad face", "a face, as emoji are"),
        ("raised hand", "a hand, as in the sign language digits"),
        ("Rocking Horse", "a class of CIFAR-10"),
        ("rain boots", "a class of Fashion-MNIST"),
    ],
)
def test_what_measures_the_model_is_left_out(name, reason):
    assert why_excluded(name.split()) == reason


def test_a_set_is_used_by_licence_and_subject():
    mit = {"license": {"spdx": "MIT"}, "category": "UI 24px"}
    assert iconify.set_used("lucide", mit)
    assert not iconify.set_used("flag", mit)
    assert not iconify.set_used("noto", mit | {"category": "Emoji"})
    assert not iconify.set_used("logos", mit | {"category": "Logos"})
    assert not iconify.set_used("spinning", mit | {"tags": ["Contains Animations"]})
    assert not iconify.set_used("typcn", mit | {"license": {"spdx": "CC-BY-SA-4.0"}})
    assert not iconify.set_used("nameless", mit | {"license": {"title": "see website"}})


# Names of icons


def test_words_of_a_style_are_no_part_of_a_name():
    assert icon_names.words("arrow-left-24-filled") == ["arrow", "left"]
    assert icon_names.words("outline-Home-rounded") == ["home"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("user-plus", "add-user"), ("house", "home"), ("angle-up", "chevron-up"), ("bell-slash", "bell-off")],
)
def test_synonyms_and_orders_have_one_key(one, other):
    assert icon_names.class_key(one.split("-")) == icon_names.class_key(other.split("-")) is not None


def test_different_things_have_different_keys():
    names = ["arrow-left", "arrow-right", "chevron-left", "user", "user-plus", "slash", "bell"]
    assert len({icon_names.class_key(name.split("-")) for name in names}) == len(names)


def test_names_that_show_nothing_have_no_key():
    assert icon_names.class_key(["action"]) is None
    assert icon_names.class_key(["remove", "user"]) is not None


def test_brands_are_left_out_unless_they_are_things():
    brands = frozenset({"slack", "signal", "drive google", "google"})
    assert icon_names.is_brand("slack", brands)
    assert icon_names.is_brand("google map", brands)
    assert not icon_names.is_brand("signal", brands)
    assert not icon_names.is_brand("anchor", brands)


# Drawings of icons


def test_authors_are_taken_in_turn():
    drawings = [*(f"ann {i}" for i in range(30)), "bob", "cid"]
    order = variety.in_turn(drawings, lambda one: one[:3], 6, rng("test"))
    assert sorted(one[:3] for one in order[:3]) == ["ann", "bob", "cid"]
    assert [one[:3] for one in order[3:]] == ["ann"] * 5


def test_a_copy_is_known_by_its_shape():
    cross = np.zeros((16, 16), np.float32)
    cross[7:9] = cross[:, 7:9] = 1
    assert variety.is_copy(cross * 0.95, [cross])
    assert not variety.is_copy(np.roll(cross, 2, 0), [cross])
    assert not variety.is_copy(cross, [])


def test_the_view_box_shrinks_to_what_is_drawn():
    coverage = np.zeros((64, 64), np.uint8)
    coverage[16:31, 32:47] = 255  # 15 x 15 pixels, of 64 for 24 units
    left, top, width, height = icon_paint.content_box(coverage, (0, 0, 24, 24))
    assert width == height == pytest.approx(15 * 64 / 60 * 24 / 64)
    assert (left + width / 2, top + height / 2) == pytest.approx((39.5 * 24 / 64, 23.5 * 24 / 64))
    assert icon_paint.content_box(np.zeros((64, 64), np.uint8), (0, 0, 24, 24)) is None


def test_a_wide_icon_gets_a_square_view_box():
    assert icon_paint.squared((2, 0, 32, 16)) == (2, -8, 32, 32)


def test_paint_replaces_every_current_colour():
    body = '<path fill="currentColor" d="M0 0h9v9z"/><path stroke="currentColor" stroke-width="2" d="M0 0h9"/>'
    for seed in range(20):
        painted, around = icon_paint.painted(body, rng("paint", seed))
        assert "currentColor" not in painted
        assert around.startswith("#") and len(around) == 7


# Pictures


def test_over_by_hand():
    picture = np.array([[[100, 0, 50, 255], [60, 30, 0, 128], [0, 0, 0, 0]]], np.uint8)
    background = np.array([[[9, 9, 9], [200, 100, 0], [1, 2, 3]]], np.uint8)
    # 60 + 127 * 200 / 255 = 159.6, of which the second term is rounded
    assert store.over(picture, background).tolist() == [[[100, 0, 50], [160, 80, 0], [1, 2, 3]]]


def test_premultiplying_darkens_what_is_seen_through():
    image = Image.new("RGBA", (1, 1), (200, 100, 0, 128))
    assert store.premultiplied(image).tolist() == [[[100, 50, 0, 128]]]
    assert store.premultiplied(Image.new("L", (1, 1), 7)).tolist() == [[[7, 7, 7, 255]]]


def test_fitting_keeps_proportions_and_centres():
    picture = np.zeros((200, 200, 4), np.uint8)
    picture[20:140, 30:90] = (10, 20, 30, 255)
    whole = store.fitted(picture)
    rows, columns = (np.flatnonzero(whole[..., 3].any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (2, 61, 17, 46)
    assert whole[32, 32].tolist() == [10, 20, 30, 255]
    assert store.fitted(np.zeros((9, 9, 4), np.uint8)) is None


def test_composites_stand_out_from_their_background():
    white = np.zeros((50, 16, 16, 4), np.uint8)
    white[:, 4:12, 4:12] = 255
    shown = store.composite(white, rng("composite")).astype(int)
    assert (shown[:, 8, 8] == 255).all()
    background = np.concatenate([shown[:, :4], shown[:, 12:]], 1).mean((1, 2))
    assert (255 - background).mean(-1).min() > 40


def test_a_source_is_read_as_it_was_written(tmp_path):
    drawn = [np.full((64, 64, 4), value, np.uint8) for value in (1, 2, 3)]
    with store.build_source(tmp_path / "source", version=7) as writer:
        writer.classes += [{"name": "cup"}, {"name": "bed"}]
        writer.origins += [{"name": "Models"}]
        for picture, class_id in zip(drawn, (0, 0, 1), strict=True):
            writer.add(picture, class_id, 0)
        assert not (tmp_path / "source").exists()
    source = store.open_source(tmp_path / "source")
    assert np.array_equal(source.pictures, np.stack(drawn))
    assert source.class_id.tolist() == [0, 0, 1]
    assert source.classes == [{"name": "cup", "pictures": 2}, {"name": "bed", "pictures": 1}]
    assert source.origins == [{"name": "Models", "pictures": 3}]
    assert source.info["version"] == 7


def test_a_build_that_fails_leaves_no_source(tmp_path):
    with pytest.raises(ZeroDivisionError), store.build_source(tmp_path / "source") as writer:
        writer.add(np.zeros((64, 64, 4), np.uint8), 0, 0)
        raise ZeroDivisionError
    assert not (tmp_path / "source").exists()
    with store.build_source(tmp_path / "source"):
        pass
    assert store.open_source(tmp_path / "source").pictures.shape == (0, 64, 64, 4)


def test_only_sources_of_this_version_are_built(tmp_path):
    assert not pictures.is_built(tmp_path)
    for version, built in ((pictures.VERSION, True), (pictures.VERSION - 1, False)):
        (tmp_path / "source.json").write_text(json.dumps({"version": version}))
        assert pictures.is_built(tmp_path) == built


def test_attribution_names_who_is_owed(tmp_path):
    with store.build_source(tmp_path / "iconify") as writer:
        writer.classes.append({"name": "cup"})
        owed = {"author": "Ann | Co", "licence": "CC-BY-4.0", "url": "https://example.org"}
        writer.origins += [owed | {"name": "Lines"}, owed | {"name": "Unused"}]
        writer.add(np.zeros((64, 64, 4), np.uint8), 0, 0)
    text = pictures.attribution({"iconify": store.open_source(tmp_path / "iconify")})
    assert "| Lines | Ann / Co | CC-BY-4.0 | https://example.org | 1 |" in text
    assert "Unused" not in text


# Meshes

CUBE = b"""
mtllib cube.mtl
v -1 -1 -1
v  1 -1 -1
v  1  1 -1
v -1  1 -1
v -1 -1  1
v  1 -1  1
v  1  1  1
v -1  1  1
usemtl red
f 5 6 7 8
usemtl green
f 1 4 3 2
f 1 5 8 4
f 2 3 7 6
f 4 8 7 3
f -8 -7 -3 -4
"""
MTL = b"newmtl red\nKd 1 0 0\nnewmtl green\nKd 0 1 0\nd 1.0\n"
FRONT_LIGHT = [Light(np.float32([0, 0, 1]), np.ones(3, np.float32), 0.0)]


def _cube():
    mesh = read_obj(CUBE, lambda name: MTL if name == "cube.mtl" else None)
    return mesh._replace(corners=mesh.corners / np.float32(np.sqrt(3)))  # within the unit sphere


def test_polygons_become_fans_of_triangles():
    mesh = read_obj(b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 1\nf 1/1 2/2 3/2 4/1\n", lambda name: None)
    assert mesh.corners.T[..., :2].tolist() == [[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]]
    assert mesh.uv.tolist() == [[[0, 0], [1, 1], [1, 1]], [[0, 0], [1, 1], [0, 0]]]
    assert mesh.normals[0].tolist() == [[0, 0, 1]] * 3


def test_the_cube_has_twelve_triangles_in_two_colours():
    mesh = _cube()
    assert mesh.corners.shape == (3, 3, 12)
    colours = [mesh.materials[i].colour for i in mesh.material]
    assert colours == [(1.0, 0.0, 0.0)] * 2 + [(0.0, 1.0, 0.0)] * 10
    assert mesh.normals[0, 0].tolist() == [0, 0, 1]


def test_the_cube_from_the_front_is_a_red_square():
    picture = render(_cube(), camera(0, 0, 0), FRONT_LIGHT, 64, 2)
    expected = np.zeros((64, 64, 4), np.uint8)
    expected[2:62, 2:62] = (255, 0, 0, 255)
    assert np.array_equal(picture, expected)


def test_the_cube_from_behind_is_green():
    picture = render(_cube(), camera(np.pi, 0, 0), FRONT_LIGHT, 32, 2)
    assert picture[16, 16].tolist() == [0, 255, 0, 255]


def test_the_cube_from_above_shows_two_sides_of_their_brightness():
    picture = render(_cube(), camera(0, np.pi / 4, 0), FRONT_LIGHT, 64, 2)
    dim = round(255 * np.sqrt(0.5))
    assert picture[45, 32].tolist() == [dim, 0, 0, 255]
    assert picture[18, 32].tolist() == [0, dim, 0, 255]


def test_glass_lets_through_what_is_behind_it():
    mesh = _cube()
    pane = mesh.corners[..., :2] + np.float32([0, 0, 0.1])[:, None, None]
    glass = Material(colour=(0.0, 0.0, 1.0), opacity=0.5)
    both = Mesh(
        np.concatenate([mesh.corners, pane], -1),
        np.concatenate([mesh.uv, mesh.uv[:2]]),
        np.concatenate([mesh.normals, mesh.normals[:2]]),
        np.append(mesh.material, [3, 3]).astype(np.int32),
        [*mesh.materials, glass],
    )
    assert render(both, camera(0, 0, 0), FRONT_LIGHT, 32, 2)[16, 16].tolist() == [128, 0, 128, 255]
    assert render(both, camera(np.pi, 0, 0), FRONT_LIGHT, 32, 2)[16, 16].tolist() == [0, 255, 0, 255]


def test_a_triangle_covers_the_middles_of_its_pixels():
    x, y = np.float32([[0], [4], [0]]), np.float32([[0], [0], [4]])
    layer = rasterise(x, y, np.full((3, 1), 0.5, np.float32), 4)
    assert (layer.triangle.reshape(4, 4) >= 0).astype(int).tolist() == [
        [1, 1, 1, 1],
        [1, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 0],
    ]
    assert layer.weights[0].tolist() == [0.75, 0.125, 0.125]


def test_the_nearest_triangle_is_seen_whatever_the_order():
    generator = np.random.default_rng(0)
    x, y = generator.uniform(0, 32, (2, 3, 200)).astype(np.float32)
    nearness = np.tile(generator.permutation(200) + 1, (3, 1)).astype(np.float32)
    forward = rasterise(x, y, nearness, 32)
    backward = rasterise(x[:, ::-1], y[:, ::-1], nearness[:, ::-1], 32)
    assert np.array_equal(forward.depth, backward.depth)
    seen = forward.triangle >= 0
    assert np.array_equal(forward.triangle[seen], 199 - backward.triangle[seen])


def test_a_texture_is_read_from_below():
    texture = np.array([[[255, 0, 0, 255]], [[0, 0, 255, 255]]], np.uint8)  # red above blue
    square = read_obj(
        b"v -.7 -.7 0\nv .7 -.7 0\nv .7 .7 0\nv -.7 .7 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3 4/4\n",
        lambda name: None,
    )._replace(materials=[Material(texture=texture)])
    picture = render(square, camera(0, 0, 0), FRONT_LIGHT, 32, 2)
    assert picture[8, 16].tolist() == [255, 0, 0, 255]
    assert picture[24, 16].tolist() == [0, 0, 255, 255]


def test_texels_that_are_transparent_are_holes():
    texture = np.array([[[255, 0, 0, 255]], [[0, 0, 255, 0]]], np.uint8)
    square = read_obj(
        b"v -.7 -.7 0\nv .7 -.7 0\nv .7 .7 0\nv -.7 .7 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3 4/4\n",
        lambda name: None,
    )._replace(materials=[Material(texture=texture)])
    picture = render(square, camera(0, 0, 0), FRONT_LIGHT, 32, 2)
    assert picture[8, 16, 3] == 255
    assert picture[24, 16, 3] == 0


# Models

CATALOGUE = """
id=Library
id#2=Library#bed
name#2=B\\u00e9d 2
model#2=/library/bed/bed.obj
width#2=140.7
depth#2=208
height#2=95.5
id#1=Library#door
name#1=Door
model#1=/library/door.obj
width#1=90
depth#1=5
height#1=200
creator#1=Ann
modelRotation#1=-1 0 0 0 1 0 0 0 -1
"""


def test_a_catalogue_is_read_in_order():
    door, bed = furniture.read_catalogue(CATALOGUE)
    assert (door.id, door.name, door.path, door.creator) == ("Library#door", "Door", "library/door.obj", "Ann")
    assert door.rotation.tolist() == [[-1, 0, 0], [0, 1, 0], [0, 0, -1]]
    assert (bed.name, bed.size, bed.creator) == ("Béd 2", (140.7, 95.5, 208.0), "")


def test_a_model_has_the_proportions_of_the_catalogue():
    bed = furniture.read_catalogue(CATALOGUE)[1]
    shaped = furniture.shaped(_cube(), bed)
    points = shaped.corners.reshape(3, -1).T
    extent = points.max(0) - points.min(0)
    assert extent / extent[0] == pytest.approx(np.array(bed.size) / bed.size[0])
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)
    assert points.min(0) == pytest.approx(-points.max(0))


def test_a_flat_thing_is_never_seen_from_its_edge():
    door = np.float32([0, 0, 1])  # its front
    rotations = furniture.views((90, 200, 1), 24, rng("views"))
    assert len(rotations) == 24
    assert min((rotation @ door)[2] for rotation in rotations) > 0.3  # nor from behind


def test_a_round_thing_is_seen_from_all_sides():
    rotations = furniture.views((1, 1, 1), 24, rng("views"))
    fronts = np.array([(rotation @ np.float32([0, 0, 1]))[[0, 2]] for rotation in rotations])
    assert np.abs(fronts.mean(0)).max() < 0.1


# Characters


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\u0e01", "Thai ko kai"),
        ("\u6f22", "Chinese 6f22"),
        ("\U00013000", "Egyptian a001"),
        ("\u21b0", "upwards arrow with tip leftwards"),
        ("\u0e51", None),  # a Thai digit
        ("\u4e09", None),  # the Chinese numeral three
        ("\u529b", None),  # looks like the katakana ka
        ("A", None),
        ("\u03a3", None),
        ("\u2211", None),  # the sum, a Greek letter
        ("\u0416", None),
        ("\u1200", None),  # Ge'ez
        ("\u0d05", None),  # Malayalam
        ("\u0c05", None),  # Telugu, which is like Kannada
        ("\u3042", None),
        ("\uac00", None),
        ("7", None),
        ("\u2600", None),  # an emoji
        ("\u23f0", None),  # an emoji in a block of symbols
        ("\u2713", None),  # in a block that emoji are in
    ],
)
def test_characters_of_test_alphabets_digits_and_emoji_are_not_drawn(character, name):
    assert scripts.named(character, unicodedata.script(character)) == name


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("Files: *\nLicense: OFL-1.1\n\nFiles: debian/*\nLicense: GPL-3+\n", "OFL-1.1"),
        ("Files: *\nLicense: SIL-1.1\n", "OFL-1.1"),
        ("License: CC-BY-SA-3.0 or OFL-1.1\n", "OFL-1.1"),
        ("License: GPL-2+\n", "GPL-2+"),
        ("A text without fields.", None),
    ],
)
def test_a_debian_licence_is_that_of_the_fonts(text, licence):
    assert fonts.debian_licence(text) == licence


def test_chinese_characters_are_those_that_most_fonts_have(monkeypatch):
    monkeypatch.setattr(fonts, "CHINESE", 2)
    had = {"\u6f22": 3, "\u5b57": 5, "\u66f8": 4, "\u0e01": 1}
    faces = {one: [fonts.Face(None, origin) for origin in range(count)] for one, count in had.items()}
    names = {one: (unicodedata.script(one), "") for one in had}
    assert fonts.choose(faces, names) == ["\u0e01", "\u5b57", "\u66f8"]


# Clip art


@pytest.mark.parametrize(
    ("path", "is_used"),
    [
        ("food/breads_and_carbs/pancakes_ganson.png", True),
        ("shapes/stars/star_pt_step.png", True),
        ("signs_and_symbols/flags/asia/iraq.png", False),
        ("unsorted/kansasflag_01.png", False),
        ("animals/mammals/dog_03_drawn_with_strai_02.png", False),
        ("shapes/letter_a.png", False),
        ("education/12_34.png", False),
        ("computer/icons/lemon-theme/apps/kate.png", False),
        ("computer/tux_at_work.png", False),
    ],
)
def test_clip_art_is_chosen_by_folder_and_name(path, is_used):
    assert clipart.used(path) == is_used


def test_clip_art_in_another_colour_is_another_picture():
    red, near = np.zeros((96, 96, 4), np.uint8), {}
    red[20:70, 30:50] = (255, 0, 0, 255)
    assert not clipart.seen_before(red, near)
    assert not clipart.seen_before(red[..., [1, 0, 2, 3]], near)
    assert clipart.seen_before(red, near)
