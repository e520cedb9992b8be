"""English captions of scenes, a new one every time. A caption says what differs from the defaults (world.py) and
sometimes what does not; so it determines the scene, except for the shade of its colours."""
from world import COLOURS, GREY, MIDDLE, SHAPES, TOP

COLOUR_WORDS = {"red": ["red", "crimson"], "green": ["green", "emerald"], "blue": ["blue", "azure"],
                "yellow": ["yellow", "golden"], "purple": ["purple", "violet"], "orange": ["orange", "tangerine"],
                "white": ["white", "snowy"], "black": ["black", "ebony"], "grey": ["grey", "gray"]}
SHAPE_WORDS = {"circle": ["circle", "disc", "dot"], "square": ["square", "box"], "triangle": ["triangle", "pyramid"],
               "star": ["star", "pentagram"], "ring": ["ring", "hoop", "donut"], "cross": ["cross", "plus"]}
SIZE_WORDS = {"big": ["big", "large", "huge"], "small": ["small", "little", "tiny"]}
PLACES = [
    ["in the top left corner", "in the upper left corner", "at the top left", "in the top left"],
    ["at the top", "at the top centre", "in the upper middle"],
    ["in the top right corner", "in the upper right corner", "at the top right", "in the top right"],
    ["on the left", "on the left side", "at the left"],
    ["in the middle", "in the centre", "in the center"],
    ["on the right", "on the right side", "at the right"],
    ["in the bottom left corner", "in the lower left corner", "at the bottom left", "in the bottom left"],
    ["at the bottom", "at the bottom centre", "in the lower middle"],
    ["in the bottom right corner", "in the lower right corner", "at the bottom right", "in the bottom right"]]
LEFT_OF = ["to the left of", "left of", "on the left of"]
RIGHT_OF = ["to the right of", "right of", "on the right of"]
ABOVE = ["above", "over", "on top of"]
BELOW = ["below", "under", "beneath", "underneath"]
AND = ["and", "and", "next to", "beside", "with", ","]
OPENINGS = ["a picture of", "a photo of", "an image of", "a drawing of", "a painting of", "an illustration of",
            "a sketch of", "a beautiful picture of", "a simple drawing of", "draw", "show me", "please draw",
            "there is", "we see", "make"]
CLOSINGS = ["please", ", digital art", ", high quality", ", simple", ", flat colours", ", minimal", ", nice", "."]
PRAISE = ["beautiful", "nice", "pretty", "lovely", "bright", "shiny", "plain", "simple"]

# What people also write in prompts. It changes nothing here, and the encoders learn to pass over it.
MOODS = """cute fluffy glowing shining dark light soft warm cold old new modern vintage magical mysterious happy sad
funny elegant wooden metal glass perfect amazing gorgeous majestic epic fantastic dreamy cool sharp smooth round wet
dry heavy floating flying dancing standing single solid flat abstract minimalist colorful colourful vivid pastel
neon tall strange famous tasty sweet wild clean detailed realistic""".split()
STYLES = """
oil painting, watercolor, watercolour painting, pencil drawing, digital painting, concept art, pixel art,
3d render, cartoon, anime style, comic style, vector art, clip art, icon, logo, photograph, photo realistic,
highly detailed, very detailed, intricate details, cinematic lighting, soft light, studio lighting,
dramatic light, sharp focus, best quality, masterpiece, award winning, trending on artstation, 8k, 4k, hd,
wallpaper, poster, children book illustration, in the style of van gogh, by picasso, from above the clouds,
at night, in summer, made of paper, it is so cool, thank you, for my cat
""".replace("\n", " ").split(", ")
STYLES = [style.strip() for style in STYLES]
SETTINGS = """
above the ocean, over the sea, in the sky, on the table, under the moon, in the forest, below the clouds, on the wall,
at the beach, on the grass, under the stars, in the garden, over the city, near the house, in the snow, by the river,
in space
""".replace("\n", " ").split(", ")
SETTINGS = [setting.strip() for setting in SETTINGS]
# A coloured thing that is no shape is drawn as a circle.
THINGS = """thing object shape heart apple ball sun moon cat dog bird fish car house flower rose tree leaf egg
button coin balloon planet tomato lemon cherry cup plate boat hat eye face stone candy cookie cake dragon
robot""".split()
VERBS = ["is", "is", "is", "stands", "sits", "lies", "floats", "is placed", "is located", "can be seen"]
MORE_OPENINGS = ["photo of", "photograph of", "a render of", "generate", "create", "i want", "can you draw", "imagine",
                 "give me", "this is", "a close up of", "the picture shows", "a minimalist poster of", "an icon of"]


def words_of(text):
    """A comma or full stop stays at the end of the word before it, as people type it."""
    return text.replace(" ,", ",").replace(" .", ".").split()


def a(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def unheard_of(rng):
    return "".join(rng.choice("bcdfghklmnprstvw" if i % 2 else "aeiou") for i in range(rng.randint(2, 7)))


class Style:
    """How one caption is worded. `synonyms` and `fillers` are probabilities."""

    def __init__(self, rng, background, synonyms, fillers):
        self.rng, self.synonyms, self.fillers = rng, synonyms, fillers
        # A shape whose colour goes without saying is black, on black it is white.
        self.unsaid = COLOURS.index("white" if background == COLOURS.index("black") else "black")
        self.article = rng.random()

    def word(self, choices):
        return self.rng.choice(choices[1:]) if self.rng.random() < self.synonyms else choices[0]

    def shape(self, colour, shape, size):
        """E.g. "a little red star"; returns its words, the last of which is the noun."""
        parts = [self.word(COLOUR_WORDS[COLOURS[colour]]), self.word(SHAPE_WORDS[SHAPES[shape]])]
        if colour == self.unsaid and self.rng.random() < 0.25:
            parts.pop(0)
        elif SHAPES[shape] == "circle" and self.rng.random() < self.fillers:
            parts[1] = self.rng.choice(THINGS) if self.rng.random() < 0.8 else unheard_of(self.rng)
        if size == 1:
            parts.insert(0, self.word(SIZE_WORDS["small"]))
        elif self.rng.random() < 0.4:
            parts.insert(0, self.word(SIZE_WORDS["big"]))
        if self.rng.random() < self.fillers:
            parts.insert(0, self.passed_over())
        phrase = " ".join(parts)
        if self.article < 0.08:
            return phrase
        return f"the {phrase}" if self.article < 0.16 else f"one {phrase}" if self.article < 0.18 else a(phrase)

    def passed_over(self):
        """An adjective without a meaning here; now and then one that nobody has seen."""
        pick = self.rng.random()
        if pick < 0.3:
            return self.rng.choice(PRAISE)
        if pick < 0.85:
            return self.rng.choice(MOODS)
        return unheard_of(self.rng)

    def verb(self):
        return [(self.rng.choice(VERBS), None)] if self.rng.random() < 0.08 else []

    def backdrop(self, background):
        """[text before, text after]; one of them is empty, both are for the grey that goes without saying."""
        if background == GREY and self.rng.random() < 0.85:
            return "", ""
        name = self.word(COLOUR_WORDS["grey" if background == GREY else COLOURS[background]])
        ground = self.word(["background", "backdrop"])
        pick = self.rng.random()
        if pick < 0.5:
            return "", f"on {a(name)} {ground}"
        if pick < 0.65:
            return "", f"against {a(name)} {ground}"
        if pick < 0.72:
            return "", f"on {name}"
        if pick < 0.79:
            return "", f", {name} {ground}"
        if pick < 0.86:
            return f"{name} {ground} ,", ""
        if pick < 0.93:
            return f"{a(name)} {ground} with", ""
        return f"on {a(name)} {ground} ,", ""


def one_shape(style, rng, scene):
    """-> [(text, index of the shape whose noun ends the text, or None)]"""
    phrase, position = style.shape(*scene[1:4]), scene[4]
    if position == MIDDLE and rng.random() < 0.75:
        return [(phrase, 0)]
    place = rng.choice(PLACES[position])
    if rng.random() < 0.12:
        return [(f"{place} ,", None), (phrase, 0)]
    return [(phrase, 0), *style.verb(), (place, None)]


def two_shapes(style, rng, scene):
    first, second = style.shape(*scene[1:4]), style.shape(*scene[5:8])
    upright = scene[4] == TOP
    pick = rng.random()
    if not upright and pick < 0.3:
        return [(first, 0), (rng.choice(AND), None), (second, 1)]
    if pick > 0.82:
        places = ("at the top", "at the bottom") if upright else ("on the left", "on the right")
        said = [(first, 0, places[0]), (second, 1, places[1])]
        if rng.random() < 0.5:
            said.reverse()
        (p, i, where), (q, j, there) = said
        return [(p, i), (f"{where} and", None), (q, j), (there, None)]
    verb = style.verb()
    if rng.random() < 0.55:
        return [(first, 0), *verb, (rng.choice(ABOVE if upright else LEFT_OF), None), (second, 1)]
    return [(second, 1), *verb, (rng.choice(BELOW if upright else RIGHT_OF), None), (first, 0)]


def caption(scene, rng, synonyms=0.35, fillers=0.15):
    """-> (text, {shape index: index of its noun among the text's words})"""
    style = Style(rng, scene[0], synonyms, fillers)
    before, after = style.backdrop(scene[0])
    parts = one_shape(style, rng, scene) if scene[5] < 0 else two_shapes(style, rng, scene)
    parts = [(before, None), *parts, (after, None)]
    if rng.random() < fillers:
        parts.insert(0, (rng.choice(rng.choice((OPENINGS, MORE_OPENINGS))), None))
    if rng.random() < fillers * 0.5:
        place = len(parts) - rng.randint(0, 1)  # before or after the words about the background
        parts.insert(place, (rng.choice(SETTINGS), None))
    for _ in range(2):
        if rng.random() < fillers * 0.7:
            parts.append((rng.choice(CLOSINGS) if rng.random() < 0.4 else f", {rng.choice(STYLES)}", None))
    text, nouns = "", {}
    for part, noun in parts:
        text = f"{text} {part}".strip()
        if noun is not None:
            nouns[noun] = len(words_of(text)) - 1
    words = words_of(text)
    pick = rng.random()
    if pick < 0.08:
        words[0] = words[0].capitalize()
    elif pick < 0.1:
        words = [word.upper() for word in words]
    elif pick < 0.12:
        words = [word.capitalize() for word in words]
    return " ".join(words), nouns


def all_words():
    """Every word that a caption can hold, without punctuation, in a fixed order."""
    lists = [*COLOUR_WORDS.values(), *SHAPE_WORDS.values(), *SIZE_WORDS.values(), *PLACES, LEFT_OF, RIGHT_OF, ABOVE,
             BELOW, AND, OPENINGS, CLOSINGS, PRAISE, ["a", "an", "the", "is", "background", "backdrop", "against", "on",
                                                      "one", "two", "object", "objects", "shape", "color", "colour"]]
    found = {}
    for words in lists:
        for text in words:
            for word in text.split():
                if word.isalpha():
                    found[word] = None
    return list(found)


def passed_over_words():
    """The words beside those of all_words() that get a token of their own."""
    texts = [*MOODS, *STYLES, *MORE_OPENINGS, *SETTINGS, *THINGS, *VERBS]
    words = {word: None for text in texts for word in text.split() if word.isalpha()}
    return [word for word in words if word not in all_words()]
