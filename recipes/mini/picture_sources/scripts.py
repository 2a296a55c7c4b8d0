"""Which characters of fonts are drawn: scripts that no alphabet of Omniglot is like, and symbols without emoji.

Left out, because Omniglot is a test: every script of its fifty alphabets, and scripts whose letters look like theirs.

- Its alphabets: Latin, Greek, Cyrillic (and Old Church Slavonic), Hebrew, Armenian, Georgian (Asomtavruli, Mkhedruli),
  Arabic (Malay), Syriac (Estrangelo, Serto), Early Aramaic, N'Ko, Tifinagh, Ge'ez, Devanagari (Sanskrit), Bengali,
  Gujarati, Gurmukhi, Kannada, Malayalam, Oriya, Grantha, Tibetan, Burmese, Balinese, Tagalog, Manipuri, Sylheti,
  Mongolian, Avesta, Glagolitic, hiragana and katakana, hangul, Canadian syllabics (Blackfoot, Inuktitut, Ojibwe),
  Braille, the Futhorc (runes), and invented ones (Magi, Angelic, Arcadian, Atlantean, Atemayar Qelisayer, Aurek-Besh,
  Futurama, Keble, Tengwar, ULOG) that have no block in Unicode.
- Their sisters: Telugu is like Kannada, Tamil like Grantha and Malayalam, Javanese like Balinese, Tai Tham and Chakma
  like Burmese, Lisu, Deseret, Cherokee, Osage and Miao like Latin, Coptic, Gothic, Lydian and Carian like Greek, Old
  Turkic like runes, Phoenician, Samaritan and other relations of Aramaic, Old South Arabian like Ge'ez, the northern
  Indian scripts like Devanagari and Bengali, Buhid, Hanunoo and Tagbanwa like Tagalog, bopomofo like kana.
- Digits of every script and Chinese numerals, because handwritten digits are a test, and Chinese characters that look
  like kana.
- Blocks of symbols in which emoji are (Miscellaneous Symbols, Dingbats), and single emoji in others.
"""

import unicodedata

# Unicode's code of a script to its name.
SCRIPTS = {
    "Thai": "Thai", "Laoo": "Lao", "Khmr": "Khmer", "Sinh": "Sinhala", "Thaa": "Thaana", "Vaii": "Vai", "Yiii": "Yi",
    "Bamu": "Bamum", "Mroo": "Mro",
    "Lepc": "Lepcha", "Limb": "Limbu", "Olck": "Ol Chiki", "Saur": "Saurashtra", "Cham": "Cham",
    "Kali": "Kayah Li", "Sund": "Sundanese", "Tale": "Tai Le", "Talu": "New Tai Lue", "Tavt": "Tai Viet",
    "Bugi": "Buginese", "Rjng": "Rejang", "Batk": "Batak", "Hmng": "Pahawh Hmong", "Sora": "Sora Sompeng",
    "Bass": "Bassa Vah", "Wara": "Warang Citi", "Mend": "Mende Kikakui", "Dupl": "Duployan", "Ogam": "Ogham",
    "Xsux": "cuneiform", "Egyp": "Egyptian", "Hluw": "Anatolian", "Lina": "Linear A", "Linb": "Linear B",
    "Cprt": "Cypriot", "Mero": "Meroitic", "Hani": "Chinese",
}  # fmt: skip

LIKE_KANA_OR_DIGITS = frozenset("〇零一二三四五六七八九十廿卅百千万億兆口力工夕卜才又匕了人入大小木毛天乙丁亅丨丶丿")

SYMBOLS = (
    (0x2190, 0x21FF),  # arrows
    (0x2200, 0x22FF),  # mathematical operators
    (0x2300, 0x23FF),  # technical
    (0x25A0, 0x25FF),  # geometric shapes
    (0x27C0, 0x27FF),  # mathematical symbols, long arrows
    (0x2900, 0x2AFF),  # arrows, mathematical operators
    (0x4DC0, 0x4DFF),  # hexagrams
    (0x1D000, 0x1D1FF),  # musical
    (0x1F700, 0x1F77F),  # alchemical
)
EMOJI = frozenset({
    *range(0x2194, 0x219A), 0x21A9, 0x21AA, 0x231A, 0x231B, 0x2328, 0x23CF, *range(0x23E9, 0x23FB), 0x25AA, 0x25AB,
    0x25B6, 0x25C0, *range(0x25FB, 0x25FF), 0x2934, 0x2935,
})  # fmt: skip


def named(character: str, script: str) -> str | None:
    """What a character is called, or None if it is not drawn. `script` is its Unicode script, four letters."""
    name = unicodedata.name(character, "").lower()
    kind = unicodedata.category(character)
    if script in SCRIPTS and kind in ("Lo", "Ll", "Lu") and character not in LIKE_KANA_OR_DIGITS:
        if script == "Hani":
            return f"Chinese {ord(character):x}" if name.startswith("cjk unified ideograph") else None
        words = name.split()
        first = next((i for i, word in enumerate(words) if word in _KINDS), 0)
        rest = [word for word in words[first + 1 :] if word not in _KINDS]
        return None if not rest or any(word in _NUMERALS for word in rest) else " ".join([SCRIPTS[script], *rest])
    code = ord(character)
    if kind in ("Sm", "So") and any(first <= code <= last for first, last in SYMBOLS) and code not in EMOJI:
        return None if any(word in _NUMERALS | _LETTER_LIKE for word in name.split()) else name
    return None


_KINDS = frozenset(
    "letter character syllable sign hieroglyph ideogram consonant vowel independent capital small".split()
)
_NUMERALS = frozenset(
    "digit number zero one two three four five six seven eight nine ten hundred thousand numeric fraction".split()
)
# Signs that are Latin or Greek letters.
_LETTER_LIKE = frozenset("greek n-ary summation product increment letter latin element there for-all empty".split())
