"""Invented values for the slots of cards: names by syllables, so that copying is learned and not a list."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from npc_runtime.training.corpus import held_out

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

_ONSETS = (
    ["b", "b", "bl", "br", "c", "c", "cl", "cr", "d", "d", "dr", "f", "f", "fl", "fr", "g", "g", "gl", "gr", "h", "h", "j", "j", "k", "k", "kr", "l", "l", "m", "m", "n", "n", "p", "p", "pl", "pr", "qu", "r", "r", "s", "s", "sc", "sh", "sk", "sl", "sn", "st", "str", "t", "t", "th", "tr", "v", "v", "w", "w", "y", "z"]
)
_VOWELS = ["a", "a", "a", "a", "a", "a", "e", "e", "e", "e", "e", "i", "i", "i", "i", "o", "o", "o", "o", "u", "u", "ai", "ea", "ee", "ie", "oo", "y"]
_CODAS = ("",) * 9 + ("n", "n", "r", "r", "l", "l", "s", "t", "k", "m", "d", "th", "ll", "rn", "nd", "ck", "sk", "x", "ss")
_ENDINGS = (
    ["a", "a", "a", "e", "en", "er", "o", "us", "is", "in", "an", "on", "ar", "el", "il", "ia", "ie", "y", "ya", "wen", "ric", "mund", "bert", "lin", "wyn", "mar", "dan", "dor", "ette", "iel", "ora", "ina", "eth", "ik", "ald", "var", "ven", "sa", "ra", "na", "ka", "ro", "ko", "na", "ly", "ley", "by", "ot", "am"]
)
_PLACE_ENDINGS = (
    ["ford", "mere", "ton", "ham", "wick", "bury", "dale", "fell", "holm", "gate", "port", "haven", "moor", "stead", "burn", "cliff", "field", "mouth", "bridge", "watch", "reach", "hollow", "deep", "grad", "stan", "ia", "a", "os", "esk", "ara", "une", "is", "el"]
)
_PLACE_WORDS = (
    ["Old", "New", "High", "Low", "Black", "White", "Red", "Cold", "Far", "Upper", "Lower", "Saint", "North", "South", "East", "West", "Little", "Great", "Lost", "Broken", "Port", "Fort", "Mount"]
)
_PLAIN_PLACES = ["the mill", "the old bridge", "the north gate", "the harbour", "the market square", "the chapel", "the quarry", "the lighthouse", "the salt road", "the ferry", "the orchard", "the docks", "the watchtower", "the well", "the crossroads", "the barracks", "the tannery", "the glass tower", "the upper deck", "the station", "the refinery", "the canyon", "the ruins", "the red door", "the bathhouse"]
_TITLES = ["Captain", "Doctor", "Sister", "Brother", "Old", "Lady", "Lord", "Master", "Mister", "Mother", "Father", "Sergeant", "Aunt", "Uncle"]
_WORD_NAMES = (
    ["Wren", "Ash", "Rose", "Hawk", "Birch", "Fern", "Flint", "Robin", "Sparrow", "Hazel", "Ivy", "Clay", "Reed", "Jasper", "Pearl", "Ruby", "Amber", "Sage", "Willow", "Rowan", "Heath", "Brook", "River", "Storm", "Raven", "Fox", "Wolf", "Bear", "Finch", "Lark", "Moss", "Thorn", "Briar", "Holly", "Olive", "Poppy", "Lily", "Iris", "Violet", "Dawn", "Summer", "Winter", "Autumn", "Sky", "Star", "Moon", "Sunny", "Frost", "Snow", "Rain", "Cloud", "Stone", "Cliff", "Dale", "Glen", "Forest", "Hunter", "Mason", "Cooper", "Carter", "Miller", "Baker", "Archer", "Fisher", "Piper", "Potter", "Taylor", "Sailor", "Penny", "Sterling", "Gold", "Silver", "Copper", "Rusty", "Dusty", "Sandy", "Patience", "Grace", "Faith", "Hope", "Joy", "Mercy", "Constance", "Felicity", "Victor", "Max", "Rex", "Ace", "Duke", "Earl", "King", "Prince", "Bishop", "Pope", "Dean", "Bell", "Drake", "Swan", "Crane", "Heron", "Jay", "Martin", "Nightingale", "Oak", "Elm", "Aspen", "Cedar", "Linden", "Maple", "Pine", "Basil", "Rosemary", "Ginger", "Pepper", "Honey", "Candy", "Cherry", "Apple", "Plum", "Berry", "Bramble", "Nettle", "Thistle", "Clover", "Daisy", "Marigold", "Echo", "Nova", "Orion", "Luna", "Cinder", "Ember", "Blaze", "Shade", "Shadow", "Whisper", "Tempest", "Gale", "Reef", "Coral", "Shell", "Marlin", "Pike", "Perch", "Button", "Patch", "Scout", "Ranger"]
)
_REAL_NAMES = (
    ["Anna", "Maria", "Sara", "Sarah", "Emma", "Julia", "Laura", "Nina", "Lena", "Eva", "Clara", "Rosa", "Marta", "Greta", "Ingrid", "Astrid", "Freya", "Elsa", "Heidi", "Petra", "Katya", "Olga", "Irina", "Vera", "Nadia", "Sofia", "Elena", "Lucia", "Carmen", "Ines", "Paloma", "Isabel", "Teresa", "Bianca", "Chiara", "Gianna", "Francesca", "Alice", "Agnes", "Edith", "Mabel", "Maud", "Beatrice", "Harriet", "Charlotte", "Emily", "Jane", "Mary", "Kate", "Nora", "Bridget", "Maeve", "Niamh", "Aisling", "Fiona", "Isla", "Morag", "Aiko", "Yuki", "Hana", "Mei", "Ling", "Xiu", "Priya", "Anjali", "Leila", "Yasmin", "Amina", "Fatima", "Zara", "Nia", "Imani", "Ada", "Tom", "Tim", "Sam", "Ben", "Dan", "Jack", "John", "James", "Peter", "Paul", "Mark", "Luke", "Matt", "Adam", "Noah", "Leo", "Hugo", "Felix", "Otto", "Karl", "Hans", "Fritz", "Klaus", "Lars", "Sven", "Erik", "Olaf", "Bjorn", "Ivan", "Boris", "Dmitri", "Pavel", "Anton", "Marco", "Luca", "Pietro", "Paolo", "Diego", "Pablo", "Miguel", "Carlos", "Juan", "Jose", "Rafael", "Pierre", "Jean", "Louis", "Marcel", "Henri", "Arthur", "Edward", "Henry", "George", "William", "Harry", "Alfred", "Albert", "Edwin", "Oscar", "Simon", "Martin", "Robert", "Richard", "Thomas", "Daniel", "David", "Michael", "Andrew", "Kevin", "Brian", "Sean", "Liam", "Finn", "Owen", "Rhys", "Ewan", "Angus", "Hamish", "Kenji", "Hiro", "Takeshi", "Wei", "Chen", "Jun", "Raj", "Arjun", "Omar", "Ali", "Hassan", "Yusuf", "Karim", "Kofi", "Kwame", "Jamal", "Alex", "Chris", "Charlie", "Jo", "Max", "Nick", "Steve", "Bob", "Bill", "Joe", "Mike", "Jenny", "Lucy", "Molly", "Polly", "Sally", "Betty", "Dora", "Flora", "Stella", "Bella", "Tess", "Tilda", "Wilma", "Zoe", "Chloe", "Maya", "Naomi", "Ruth", "Esther", "Judith", "Miriam", "Rachel", "Rebecca", "Leah", "Hannah", "Abel", "Caleb", "Ezra", "Gideon", "Isaac", "Jacob", "Jonas", "Levi", "Micah", "Nathan", "Reuben", "Silas", "Tobias"]
)

ITEMS = ["ring", "knife", "lantern", "compass", "key", "book", "map", "flute", "helmet", "boot", "cloak", "coin", "mirror", "bell", "whistle", "drum", "box", "bottle", "button", "brooch", "locket", "watch", "hammer", "saw", "needle", "spoon", "kettle", "pot", "pan", "basket", "rope", "saddle", "bridle", "spear", "sword", "dagger", "shield", "bow", "arrow", "axe", "crown", "medal", "badge", "letter", "scroll", "candle", "lamp", "torch", "mask", "glove", "hat", "scarf", "belt", "coat", "shirt", "blanket", "pillow", "chair", "stool", "clock", "wheel", "anchor", "oar", "net", "hook", "fiddle", "harp", "horn", "doll", "kite", "top", "dice cup", "chess piece", "pipe", "tobacco tin", "snuffbox", "walking stick", "umbrella", "feather", "stone", "shell", "bone", "tooth", "skull", "egg", "seed", "flower", "leaf", "crystal", "pearl", "ruby", "emerald", "amulet", "charm", "bracelet", "necklace", "earring", "comb", "brush", "razor", "soap", "pistol", "rifle", "grenade", "radio", "battery", "wrench", "screwdriver", "circuit board", "data chip", "fuel cell", "gas mask", "flashlight", "camera", "photograph", "notebook", "pen", "ink bottle", "typewriter", "suitcase", "backpack", "tent", "bedroll", "shovel", "pickaxe", "bucket", "ladder", "telescope", "hourglass", "teapot", "cup", "plate", "carpet", "banner", "flag", "painting", "statue", "violin", "sickle", "loom", "spinning wheel", "crowbar", "music box", "glass eye", "wooden leg", "jar of honey", "ladle", "thimble", "bellows"]
_QUALITIES = ["silver", "golden", "iron", "copper", "brass", "wooden", "stone", "glass", "bone", "ivory", "old", "broken", "cracked", "rusty", "tiny", "heavy", "carved", "painted", "black", "red", "blue", "green", "white", "yellow", "grey", "plain", "bent", "stolen", "borrowed", "lucky", "strange", "burnt", "folded", "torn", "polished", "dented", "crooked", "striped", "folding", "cheap", "ancient", "enchanted", "cursed", "round", "square", "long", "short"]
FOODS = ["bread", "cheese", "plums", "apples", "herring", "mutton", "eel pie", "onion soup", "barley", "rice", "noodles", "beans", "lentils", "cabbage", "turnips", "honey cake", "gingerbread", "porridge", "smoked trout", "salt pork", "roast goose", "oysters", "mussels", "crab", "shrimp", "mushrooms", "chestnuts", "walnuts", "almonds", "figs", "dates", "olives", "grapes", "pears", "cherries", "blackberries", "strawberries", "lemon tart", "apple pie", "pumpkin", "carrots", "peas", "leek soup", "fish stew", "goat stew", "rabbit stew", "venison", "bacon", "sausage", "ham", "eggs", "butter", "cream", "curd", "yoghurt", "pancakes", "dumplings", "flatbread", "rye bread", "oatcakes", "biscuits", "jam", "marmalade", "honey", "garlic", "pickles", "seaweed", "squid", "octopus", "snails", "liver", "tripe", "black pudding", "rhubarb", "melon", "peaches", "apricots", "raisins", "chocolate", "toffee", "tomatoes", "peppers", "corn", "potatoes", "yams", "spinach"]
ANIMALS = ["dog", "cat", "horse", "goat", "sheep", "cow", "pig", "donkey", "mule", "hen", "rooster", "goose", "duck", "swan", "crow", "raven", "owl", "hawk", "falcon", "eagle", "sparrow", "parrot", "pigeon", "rat", "mouse", "squirrel", "rabbit", "hare", "fox", "wolf", "bear", "badger", "otter", "beaver", "deer", "stag", "boar", "hedgehog", "mole", "bat", "snake", "lizard", "frog", "toad", "turtle", "tortoise", "crab", "lobster", "spider", "beetle", "wasp", "bee", "ant", "moth", "pike", "salmon", "trout", "eel", "shark", "whale", "seal", "walrus", "camel", "elephant", "monkey", "ape", "lion", "tiger", "leopard", "lynx", "jackal", "hyena", "vulture", "peacock", "weasel", "ferret", "pony", "ox", "bull", "ram", "calf", "lamb", "kitten", "puppy", "mastiff", "terrier", "greyhound", "scorpion", "crocodile", "dragon", "griffin"]
JOBS = ["baker", "miller", "smith", "carpenter", "mason", "weaver", "tailor", "cobbler", "tanner", "potter", "glassblower", "cooper", "wheelwright", "fletcher", "farmer", "shepherd", "fisherman", "sailor", "pilot", "captain", "soldier", "guard", "scout", "hunter", "trapper", "woodcutter", "charcoal burner", "miner", "quarryman", "merchant", "pedlar", "innkeeper", "brewer", "cook", "butcher", "fishmonger", "grocer", "clerk", "scribe", "scholar", "teacher", "priest", "monk", "nun", "doctor", "nurse", "midwife", "herbalist", "barber", "gravedigger", "judge", "lawyer", "sheriff", "jailer", "hangman", "thief", "smuggler", "spy", "bounty hunter", "mechanic", "engineer", "welder", "electrician", "driver", "courier", "postman", "printer", "painter", "sculptor", "musician", "singer", "dancer", "actor", "juggler", "fortune teller", "beekeeper", "gardener", "stable hand", "groom", "ferryman", "lighthouse keeper", "clockmaker", "locksmith", "jeweller", "banker", "tax collector", "mapmaker", "bookbinder", "falconer", "rat catcher", "chimney sweep", "night watchman", "interpreter", "wizard", "alchemist"]
COLORS = ["red", "blue", "green", "yellow", "black", "white", "grey", "brown", "purple", "orange", "pink", "violet", "crimson", "scarlet", "silver", "gold", "copper", "turquoise", "indigo", "ochre", "rust red", "sea green", "sky blue", "cream", "ivory", "amber", "emerald", "dark blue", "pale green", "rose", "teal", "maroon"]
TIMES = ["dawn", "noon", "dusk", "midnight", "sunrise", "sunset", "nightfall", "first light", "moonrise", "high tide", "low tide", "the third bell", "the evening bell", "the change of the guard"]
_UNITS = (
    ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"]
)
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_NUMBERS = [*_UNITS, "eighteen", "nineteen"]

PRONOUNS = (
    {"they": "he", "them": "him", "their": "his"},
    {"they": "she", "them": "her", "their": "her"},
    {"they": "they", "them": "them", "their": "their"},
)

_SLOT = re.compile(r"\{([a-z]+)(\d?)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])(?!one\b|uni|use|eu)")


def coined(rng: random.Random) -> str:
    """An invented personal name of one to four syllables."""
    syllables = rng.choice((1, 2, 2, 2, 3))
    parts = [rng.choice(_ONSETS) if rng.random() < 0.85 else ""]
    for index in range(syllables):
        last = index == syllables - 1
        ending = last and syllables > 1 and rng.random() < 0.7
        parts.append(rng.choice(_ENDINGS) if ending else rng.choice(_VOWELS) + rng.choice(_CODAS))
        if not last and rng.random() < 0.7:
            parts.append(rng.choice(_ONSETS))
    name = "".join(parts).capitalize()
    return name if 2 < len(name) < 13 else coined(rng)


def person(rng: random.Random) -> str:
    """A personal name: mostly coined, sometimes a word or a known name, a title or a surname now and then."""
    kind = rng.random()
    pool = _WORD_NAMES if kind < 0.15 else _REAL_NAMES
    name = coined(rng) if kind > 0.4 else rng.choice(pool)
    if rng.random() < 0.06:
        name = f"{name} {coined(rng)}"
    if rng.random() < 0.05:
        name = f"{rng.choice(_TITLES)} {name}"
    return name


def place(rng: random.Random) -> str:
    """A place: a coined town, a town with a word before it, or a plain landmark."""
    kind = rng.random()
    if kind < 0.12:
        return rng.choice(_PLAIN_PLACES)
    stem = rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
    town = coined(rng) if kind < 0.4 else (stem + rng.choice(_PLACE_ENDINGS)).capitalize()
    return f"{rng.choice(_PLACE_WORDS)} {town}" if rng.random() < 0.12 else town


def number(rng: random.Random) -> str:
    """A number of at least 2, in digits or in words."""
    if rng.random() < 0.5:
        return str(rng.choice((rng.randint(2, 30), rng.randint(2, 99), rng.randint(20, 999), 10 * rng.randint(2, 60))))
    if rng.random() < 0.6:
        return rng.choice(_NUMBERS)
    return rng.choice(_TENS) + (f"-{rng.choice(_UNITS[:8])}" if rng.random() < 0.6 else "")


def item(rng: random.Random) -> str:
    """A thing, often with a quality."""
    thing = rng.choice(ITEMS)
    return f"{rng.choice(_QUALITIES)} {thing}" if rng.random() < 0.5 else thing


_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "person": person,
    "place": place,
    "number": number,
    "item": item,
    "food": lambda rng: rng.choice(FOODS),
    "animal": lambda rng: rng.choice(ANIMALS),
    "job": lambda rng: rng.choice(JOBS),
    "color": lambda rng: rng.choice(COLORS),
    "time": lambda rng: rng.choice(TIMES),
}


class Values:
    """The values of one card's slots, drawn when first asked for and the same ever after.

    Drawn from names outside the held-out set, or only from that set when `unseen`.
    """

    def __init__(self, rng: random.Random, unseen: bool = False, fixed: dict[str, str] | None = None) -> None:
        self._rng, self._unseen = rng, unseen
        self._values: dict[str, str] = {**rng.choice(PRONOUNS), **(fixed or {})}

    def __getitem__(self, slot: str) -> str:
        if slot not in self._values:
            self._values[slot] = self._draw(slot.rstrip("0123456789"))
        return self._values[slot]

    def _draw(self, kind: str) -> str:
        if kind not in _MAKERS:
            raise KeyError(f"slot `{kind}` is none of {', '.join(_MAKERS)}")
        while True:
            value = _MAKERS[kind](self._rng)
            wanted = kind not in ("person", "place") or held_out(value) == self._unseen
            if wanted and value not in self._values.values():
                return value

    def fill(self, text: str) -> str:
        """The text with its slots filled, capitals at the head of sentences, and "an" before vowels."""
        return _ARTICLE.sub(r"\1n ", _SLOT.sub(lambda slot: self._slot(slot, text), text))

    def _slot(self, slot: re.Match[str], text: str) -> str:
        value = self[slot.group(1) + slot.group(2)]
        before = text[: slot.start()].rstrip(" \"'")
        opens = before[-1:] in (".", "!", "?") or (not before and text.rstrip()[-1:] in (".", "!", "?"))
        return value[:1].upper() + value[1:] if opens else value


def slots(text: str) -> set[str]:
    """The slot names a text holds."""
    return {name + digit for name, digit in _SLOT.findall(text)}
