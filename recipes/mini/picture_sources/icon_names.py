"""When two icons are the same thing: words of a name, words of a style, synonyms and brands."""

from collections.abc import Iterable

STYLES = frozenset(
    "outline outlined filled fill solid regular bold light thin duotone twotone line linear broken rounded round sharp "
    "baseline remix flat medium small semibold tone print expressive o stroke s icon black alt fat duo rtl ltr "
    "10 12 14 15 16 18 20 24 28 30 32 36 48 64 96 10px 12px 16px 18px 20px 24px 32px 48px".split()
)  # of a drawing, not of what is drawn

# One word for another, in names of any length; the last column stands for them all.
_WORDS = {
    word: line.split()[-1]
    for line in """
        add plus
        subtract minus
        email envelope mail
        mic microphone
        house home
        photo picture image
        information info
        exclamation alert
        gear cog setting settings
        telephone call phone
        document file
        checkmark check
        bike bicycle
        trashcan bin trash
        magnifier magnify magnifyingglass search
        smartphone mobile
        group people users
    """.splitlines()
    for word in line.split()
}

# Whole names for the same icon, each line's last stands for them all. Words as they are after the table above.
_NAMES = """
    times, multiply, xmark, close
    angle down, chevron down
    angle left, chevron left
    angle right, chevron right
    angle up, chevron up
    cloud arrow down, cloud down, cloud download
    cloud arrow up, cloud up, cloud upload
    bars, menu
    floppy, floppy disk, save
    cut, scissors
    cutlery, utensils, fork knife, restaurant
    flame, fire
    seedling, sprout
    shop, store
    lock open, unlock
    lock closed, lock
    log in, sign in, login
    log out, sign out, logout
    gender female, venus
    gender male, mars
    infinite, infinity
    magnifying glass, zoom, search
    search minus, zoom out
    search plus, zoom in
    user users, users
    mobile phone, mobile
    monitor, desktop
    birthday cake, cake
    trash can, trash
    shopping cart, cart
    shopping basket, basket
    bulb, lightbulb
    lightning, lightning bolt, flash, zap, thunder, bolt
    life ring, buoy, lifebuoy
    thumb up, like, thumbs up
    thumb down, dislike, thumbs down
    trend up, trending up
    trend down, trending down
    paint brush, brush, paintbrush
    qrcode, qr code
    at sign, at
    hashtag, hash
    equals, equal
    percentage, percent
    sort asc, sort ascending
    sort desc, sort descending
    location pin, map marker, map pin, location
    gas pump, gas station, fuel
    cone, traffic cone
    video camera, video
    reload, refresh
    dollar sign, dollar
    icecream, ice cream
    hamburger, burger
    spray can, spray
    cd, disc
    puzzle piece, puzzle
    headphone, headphones
    paper clip, attachment, attach, paperclip
    barbell, dumbbell
    full screen, fullscreen
    speedometer, gauge
    alert triangle, warning
    music note, music
    list unordered, list ul, list bullet, list
    news, newspaper
    price tag, label, tag
    walk, walking
    run, running
    bowling ball, bowling
    tennis ball, tennis
    eyeglasses, glasses
    couch, sofa
    bank, museum, landmark
    help, question mark, question
    circle help, question mark circle, question circle
    closed captioning, closed caption
    circle record, record
    bath, bathtub
    syringe, injection
    cloud rain, rain
    sunset, sunrise
    cog, settings
    eye slash, eye closed, hide, eye off
    panel left, sidebar
    tasks, checklist, list check
    palette color, palette
    credit card, card
    marker, highlighter
    stroller, baby carriage
    trees, forest
    american football, football
    stopwatch, timer
    alarm, alarm clock
    cocktail, drink
    motorcycle, scooter
    rotate ccw, rotate left
    rotate cw, rotate right
    crosshairs, crosshair
    chat bubble, bubble chat, comment, message, chat
    comments, messages, chats
    bullhorn, megaphone
    mail open, envelope open
    package, box
    world, earth, globe
    suitcase, luggage
    coffee cup, coffee
    gavel, hammer judge
    weight scale, scale
    balance, scales
    pipette, eyedropper
    elevator, lift
    pencil, edit
    volume mute, mute, volume off
"""
_SAME = {
    " ".join(sorted(name.split())): " ".join(sorted(names[-1].split()))
    for line in _NAMES.strip().splitlines()
    for names in [[name.strip() for name in line.split(",")]]
    for name in names
}
# Words that every author takes for another drawing: of no picture.
_VAGUE = frozenset(
    "remove clear cancel delete body board business service support option options style start open off on up "
    "down left right back next previous action app apps icons content data details explore favorite form format "
    "function health work tool tools industry organization education success error report review sign section slice "
    "storage".split()
)

# Brands by name, but things too, and as icons nearly always the thing.
_THINGS = frozenset(
    "app atom chat circle cube drone flask ghost git meteor rss signal square tie usb zoom less first "
    "kit ring lightning cursor glass box rook chef wine magic plane radar satellite scan task note node bluetooth "
    "drizzle".split()
)
_BRANDS = frozenset("ios iphone android google apple windows bitcoin ethereum logo creative".split())
_BRAND_NAMES = frozenset({"git", "bluetooth", "x"})


def words(icon: str) -> list[str]:
    """The words of an icon's name without those of its style: `arrow-left-24-filled` is an arrow left."""
    return [word for word in icon.lower().split("-") if word and word not in STYLES]


def class_key(name: Iterable[str]) -> str | None:
    """One key for the words of a name in any order and for its synonyms. None for a name that shows nothing."""
    replaced = [_WORDS.get(word, word) for word in name]
    if len(replaced) > 1:  # "bell slash" is "bell off"; a slash alone is a line
        replaced = ["off" if word in ("slash", "slashed") else word for word in replaced]
    key = " ".join(sorted(replaced))
    return None if key in _VAGUE else _SAME.get(key, key)


def is_brand(key: str, brands: frozenset[str]) -> bool:
    """Whether a class key is the name of a brand, or holds one."""
    if key in _BRAND_NAMES or (key in brands and key not in _THINGS):
        return True
    return any((word in brands or word in _BRANDS) and word not in _THINGS for word in key.split())
