import pytest

from linkcontext.evaluation.answers import match, normalise_reply
from linkcontext.records import Candidate

# Replies in which 1 is part of a longer number or term, and in which it stands by itself.
LONGER = (
    "1.5|-1|\N{MINUS SIGN}1|1,000|1 000|1\N{NARROW NO-BREAK SPACE}000|1'000|3/1|1/3|½|1%|1 %|11|x1|1st|F-1"
    "|COVID-1|0.1|.1|1:30|1-2|2–1|$1|1 €|1€|+1|±1|>1|≤1|1+|1^2|5¹|2*1|1×2|1_000|(1.5)|1,5|1e5|1e-5|12.1"
    "|2.1.|١٫٥|1️⃣2|1..5|1…5|1 1/2|1 ½"
)
ALONE = (
    "1|1.|(1)|It is 1, I think|**1**|<b>1</b>|answer:1|no.1|1!|x=1|1\n|１|١|१|①|1️⃣|[1]|1;|It has 1.|1 cat|Hmm...1|1.cat"
)


def named(*names):
    return [Candidate(f"class {i}", name, name) for i, name in enumerate(names)]


@pytest.mark.parametrize(
    ("reply", "names", "expected"),
    [
        ("plimbo", ("plimbo", "tavork"), "class 0"),
        ("It is a TAVORK.", ("plimbo", "tavork"), "class 1"),
        ("plimbo, plimbo!", ("plimbo", "tavork"), "class 0"),
        ("plimbo or tavork", ("plimbo", "tavork"), None),
        ("not sure", ("plimbo", "tavork"), None),
        ("", ("plimbo", "tavork"), None),
        ("plimbos", ("plimbo", "tavork"), None),  # another word
        ("a_plimbo", ("plimbo", "tavork"), None),
        ("plimbo's", ("plimbo", "tavork"), "class 0"),
        ("kit fox", ("fox", "kit fox"), "class 1"),
        ("a kit  fox\n", ("fox", "kit fox"), "class 1"),
        ("fox", ("fox", "kit fox"), "class 0"),
        ("a kit fox, a fox", ("fox", "kit fox"), None),
        ("red fox red", ("red fox", "fox red"), None),  # overlapping, equally long: both are named
        ("STRASSE", ("straße", "gasse"), "class 0"),
        ("ﬁnch", ("finch", "wren"), "class 0"),  # the ligature
        ("cafe\u0301", ("café", "cafe"), "class 0"),  # a letter and its accent, composed by NFKC
        ("कमी", ("कम", "कमी"), "class 1"),
        ("कमी", ("कम", "बड़ा"), None),  # a vowel sign belongs to the word
        ("10", ("1", "10"), "class 1"),
        ("a C++ file", ("c++", "c"), "class 0"),
        ("same", ("same", "Same"), None),  # one name, two classes
        ("anything", ("", "plimbo"), None),
        ("plimbo\0tavork", ("plimbo", "tavork"), None),
    ],
)
def test_replies_by_hand(reply, names, expected):
    assert match(reply, named(*names)) == expected


@pytest.mark.parametrize(
    ("reply", "names", "expected"),
    [
        ("这是一只猫。", ("猫", "狗"), "猫"),
        ("图中有一只可爱的猫和一个球", ("猫", "狗"), "猫"),
        ("這是貓還是狗", ("貓", "狗"), None),
        ("熊猫", ("熊猫", "猫"), "熊猫"),
        ("答案是cat。", ("cat", "dog"), "cat"),
        ("这是C++代码", ("c++", "c"), "c++"),
        ("これは猫です", ("猫", "犬"), "猫"),
        ("これはねこです", ("ねこ", "いぬ"), "ねこ"),
        ("ライオンです", ("ライオン", "ライ"), "ライオン"),
        ("ライオンです", ("ライ", "トラ"), None),  # words of Katakana end where the script does
        ("ﾈｺです", ("ネコ", "イヌ"), "ネコ"),
        ("Tシャツ", ("t", "s"), "t"),
        ("นี่คือแมว", ("แมว", "หมา"), "แมว"),
        ("นี่คือแม่", ("แม", "พ่อ"), None),  # a tone mark belongs to its letter
        ("ນີ້ແມ່ນແມວ", ("ແມວ", "ໝາ"), "ແມວ"),
        ("នេះគឺជាឆ្មា", ("ឆ្មា", "ឆ្កែ"), "ឆ្មា"),
        ("နေကြောင်ပါ", ("ကြောင်", "ခွေး"), "ကြောင်"),
        ("고양이입니다", ("고양이", "개"), "고양이"),
        ("이것은 고양이예요.", ("고양이", "개"), "고양이"),
        ("이 동물은 개다", ("고양이", "개"), "개"),
        ("사진에는 고양이가 있습니다", ("고양이", "개"), "고양이"),
        ("고양이와 개", ("고양이", "개"), None),
        ("개구리입니다", ("개", "고양이"), None),  # a frog
        ("무지개입니다", ("개", "고양이"), None),  # a rainbow
        ("fox입니다", ("fox", "wolf"), "fox"),
        ("3개입니다", ("3", "5"), "3"),
        ("有3个苹果", ("3", "5"), "3"),
        ("十一", ("一", "二"), None),
        ("二只", ("一", "二"), "二"),
    ],
)
def test_scripts_without_spaces_and_particles(reply, names, expected):
    assert match(reply, [Candidate(name, name, name) for name in names]) == expected


@pytest.mark.parametrize(
    "reply",
    LONGER.split("|"),
)
def test_a_number_inside_something_longer_is_not_named(reply):
    assert match(f"It is {reply}.", named("1", "7")) is None
    assert match(reply, named("1", "7")) is None


@pytest.mark.parametrize(
    "reply",
    ALONE.split("|"),
)
def test_a_number_by_itself_is_named(reply):
    assert match(reply, named("1", "7")) == "class 0"


@pytest.mark.parametrize(
    ("reply", "names", "expected"),
    [
        ("C# code", ("c", "java"), None),
        ("C# code", ("c", "c#"), "class 1"),
        ("C++ code", ("c", "java"), None),
        ("C++17", ("c++", "c"), None),
        ("It is C.", ("c", "java"), "class 0"),
        ("A+", ("a", "b"), None),
        ("F♯", ("f", "g"), None),
        ("Objective-C", ("c", "java"), None),
        ("an X-ray", ("x", "y"), None),
        (".NET", ("net", "java"), None),
        (".NET", ("net", ".net"), "class 1"),
        ("ASP.NET", ("net", ".net"), None),
        ("node.js", ("node", "js"), None),
        ("a cat.jpg", ("cat", "dog"), None),
        ("U.S.", ("u", "s"), None),
        ("B.fox", ("a", "b"), "class 1"),  # a letter of a choice and what it stands for
        ("A cat. A dog", ("cat", "wolf"), "class 0"),
        ("I don't know", ("t", "s"), None),
        ("I don’t know", ("t", "don"), None),
        ("c'est l'avion", ("avion", "train"), "class 0"),
        ("un'oca", ("oca", "gatto"), "class 0"),
        ("R&D", ("r", "d"), None),
        ("AT&T", ("at", "t"), None),
        ("F-16", ("f", "16"), None),
        ("F-16", ("f-16", "f"), "class 0"),
        ("50%", ("50", "5"), None),
        ("50%", ("50%", "5"), "class 0"),
        ("0.50%", ("50%", "5"), None),
        ("3/4", ("3", "5"), None),
        ("3/4", ("3/4", "4"), "class 0"),
        ("½", ("1/2", "2"), "class 0"),
        ("5²", ("52", "5"), None),
        ("m²", ("m2", "m"), "class 0"),
        ("-1", ("-1", "1"), "class 0"),
        ("−1", ("-1", "1"), "class 0"),
        ("5-1", ("-1", "5"), None),
        ("1,000", ("1,000", "1"), "class 0"),
        ("1.5", ("1.5", "1"), "class 0"),
        ("1.5.2", ("1.5", "1"), None),
        ("a kit-fox", ("kit fox", "fox"), "class 1"),
        ("plim\N{SOFT HYPHEN}bo\N{ZERO WIDTH SPACE}", ("plimbo", "tavork"), "class 0"),
        ("\N{LEFT-TO-RIGHT MARK}plimbo", ("plimbo", "tavork"), "class 0"),
        ("Lego™", ("lego", "duplo"), "class 0"),
        ("👨‍👩‍👧", ("👨", "👩"), None),
        ("a 🦊!", ("🦊", "🐺"), "class 0"),
        ("❤️", ("❤", "💔"), "class 0"),
        ("🇩🇪🇫🇷", ("🇩🇪", "🇪🇫"), "class 0"),
    ],
)
def test_terms_with_marks_of_their_own(reply, names, expected):
    assert match(reply, named(*names)) == expected


@pytest.mark.parametrize("reply", ["red fox red", "kit fox", "a kit fox, a fox", "fox"])
def test_the_order_of_candidates_decides_nothing(reply):
    candidates = named("fox", "kit fox", "red fox", "fox red")
    assert match(reply, candidates) == match(reply, candidates[::-1])


def test_normalising_twice_changes_nothing():
    for text in ("ẞ ﬁ  İ", "K \u00a0x", "Ω ͅ", "5² ½ ①", "don’t ١٫٥", "a\u200bb 👨‍👩‍👧 ™"):
        assert normalise_reply(normalise_reply(text)) == normalise_reply(text)
