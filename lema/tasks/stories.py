"""What word problems are made of: beginnings that set a quantity up, and moves that change it.

A quantity has a kind ("held", "money", ...). A move reads one kind and makes another, so that moves chain into
stories of any length. In texts, {n} is the person of the story, {o} another one, {he} {him} {his} pronouns, {x} the
things, {v} the quantity at the beginning, {a} and {b} new numbers, and in a move's lines {eq} the equation. A move's
`steps` are its equations: `v` is the quantity so far and `s` the result of the line before.
"""

from typing import NamedTuple


class Beginning(NamedTuple):
    """Sets up a quantity `v` of one kind, at most `largest`."""

    kind: str
    text: str
    largest: int = 10**9


class Move(NamedTuple):
    """Changes a quantity: one line of the rationale for each of `steps`. After a `swap`, {o} is the person."""

    kind: str
    to: str
    steps: str
    text: str
    lines: tuple[str, ...]
    question: str
    swap: bool = False
    food: bool = False


GIRLS = [
    "Mia", "Anna", "Zoe", "Lily", "Ruth", "Nina", "Sara", "Emma", "Maya", "Jane", "Ella", "Rosa", "Amy",
    "Leah", "Iris", "Tina",
]  # fmt: skip
BOYS = [
    "Ben", "Tom", "Sam", "Leo", "Max", "Noah", "Paul", "Jack", "Adam", "Omar", "Ravi", "Hugo", "Finn", "Luke",
    "Eric", "Ivan",
]  # fmt: skip
FOOD = [
    "apples", "oranges", "cookies", "muffins", "peaches", "plums", "pears", "carrots", "rolls", "cherries",
]  # fmt: skip
TOYS = [
    "marbles", "stickers", "pencils", "cards", "shells", "balloons", "beads", "stamps", "buttons", "blocks",
    "crayons", "flowers",
]  # fmt: skip

BEGINNINGS = (
    Beginning("held", "{n} has {v} {x}."),
    Beginning("held", "{n} buys {v} {x} at the market."),
    Beginning("held", "{n} counts {v} {x} in {his} bag."),
    Beginning("held", "{n}'s aunt sends {him} {v} {x}."),
    Beginning("money", "{n} has ${v}."),
    Beginning("money", "{n} gets ${v} for {his} birthday."),
    Beginning("money", "{n} earns ${v} by washing cars."),
    Beginning("wage", "{n} earns ${v} an hour.", 20),
    Beginning("saving", "{n} saves ${v} every week.", 20),
    Beginning("price", "A ticket costs ${v}.", 20),
    Beginning("pages", "{n}'s book has {v} pages."),
    Beginning("reading", "{n} reads {v} pages a day.", 30),
    Beginning("road", "A bus drives {v} km in the morning."),
    Beginning("speed", "A train goes {v} km an hour.", 60),
    Beginning("age", "{n} is {v} years old.", 16),
    Beginning("riders", "There are {v} people on a bus."),
    Beginning("class", "There are {v} students in {n}'s class."),
    Beginning("seatrows", "A hall has {v} rows of seats.", 15),
    Beginning("plantrows", "{n}'s garden has {v} rows of plants.", 15),
    Beginning("water", "A tank holds {v} litres of water."),
    Beginning("practice", "{n} plays the piano for {v} minutes on Monday."),
    Beginning("points", "{n} scores {v} points in the first game."),
    Beginning("trays", "A baker fills {v} trays with rolls.", 15),
    Beginning("hens", "{n}'s hens lay {v} eggs a day.", 20),
    Beginning("rope", "{n} has a rope {v} metres long."),
)

_NOW = ("{n} has {eq} {x}.",), "How many {x} does {n} have now?"
_LEFT = ("{n} has {eq} {x} left.",), "How many {x} does {n} have left?"
_CASH_NOW = ("{n} has {eq} dollars.",), "How many dollars does {n} have now?"
_CASH_LEFT = ("{n} has {eq} dollars left.",), "How many dollars does {n} have left?"
_SOLD = ("{n} gets {eq} dollars.",), "How many dollars does {n} get?"

MOVES = (
    Move("held", "held", "v+a", "{He} buys {a} more.", *_NOW),
    Move("held", "held", "v+a", "{o} gives {him} {a} more.", *_NOW),
    Move("held", "held", "v+a", "Then {he} gets {a} more {x} from {his} uncle.", *_NOW),
    Move("held", "held", "v-a", "{He} gives {a} of them to {o}.", *_LEFT),
    Move("held", "held", "v-a", "{He} loses {a} {x} on the way home.", *_LEFT),
    Move("held", "held", "v-a", "{He} sells {a} of the {x}.", *_LEFT),
    Move("held", "held", "v-a", "{He} eats {a} {x}.", *_LEFT, food=True),
    Move("held", "held", "v-a", "{He} bakes a cake with {a} of them.", *_LEFT, food=True),
    Move("held", "held", "v*a", "{o} has {a} times as many {x} as {n}.",
         ("{o} has {eq} {x}.",), "How many {x} does {o} have?", swap=True),
    Move("held", "held", "v+a", "{o} has {a} more {x} than {n}.",
         ("{o} has {eq} {x}.",), "How many {x} does {o} have?", swap=True),
    Move("held", "held", "v-a", "{o} has {a} fewer {x} than {n}.",
         ("{o} has {eq} {x}.",), "How many {x} does {o} have?", swap=True),
    Move("held", "held", "a*b v+s", "{He} buys {a} packs of {b} {x} each.",
         ("The packs hold {eq} {x}.", "{n} has {eq} {x}."), "How many {x} does {n} have now?"),
    Move("held", "held", "a*b v-s", "{He} fills {a} bags with {b} {x} each.",
         ("The bags hold {eq} {x}.", "{eq} {x} are left over."), "How many {x} are left over?"),
    Move("held", "held", "a*b v-s", "{He} gives {b} {x} to each of {a} friends.",
         ("{n} gives away {eq} {x}.", "{n} has {eq} {x} left."), "How many {x} does {n} have left?"),
    Move("held", "both", "v+a", "{o} has {a} {x}.",
         ("Together they have {eq} {x}.",), "How many {x} do they have together?"),
    Move("held", "both", "v+a v+s", "{o} has {a} more {x} than {n}.",
         ("{o} has {eq} {x}.", "Together they have {eq} {x}."), "How many {x} do they have together?"),
    Move("held", "both", "v*a v+s", "{o} has {a} times as many {x} as {n}.",
         ("{o} has {eq} {x}.", "Together they have {eq} {x}."), "How many {x} do they have together?"),
    Move("held", "end", "v-a", "{o} has only {a} {x}.",
         ("{n} has {eq} more {x}.",), "How many more {x} does {n} have than {o}?"),
    Move("held", "share", "v/a", "{He} shares them equally among {a} friends.",
         ("Each friend gets {eq} {x}.",), "How many {x} does each friend get?"),
    Move("held", "boxes", "v/a", "{He} packs them into boxes of {a}.",
         ("{n} fills {eq} boxes.",), "How many boxes does {n} fill?"),
    Move("held", "end", "v/a", "{He} puts them equally into {a} baskets.",
         ("Each basket holds {eq} {x}.",), "How many {x} are in each basket?"),
    Move("held", "money", "v*a", "{He} sells all of them for ${a} each.", *_SOLD),
    Move("both", "both", "v-a", "They give away {a} of all their {x}.",
         ("They have {eq} {x} left.",), "How many {x} do they have left together?"),
    Move("both", "share", "v/a", "They share all of them equally among {a} friends.",
         ("Each friend gets {eq} {x}.",), "How many {x} does each friend get?"),
    Move("share", "end", "v+a", "One of the friends had {a} {x} before.",
         ("That friend has {eq} {x}.",), "How many {x} does that friend have now?"),
    Move("share", "end", "v-a", "One friend gives {a} of them back.",
         ("That friend has {eq} {x} left.",), "How many {x} does that friend have left?"),
    Move("boxes", "boxes", "v-a", "{a} of the boxes are sent away.",
         ("{eq} boxes are left.",), "How many boxes are left?"),
    Move("boxes", "money", "v*a", "{He} sells every box for ${a}.", *_SOLD),
    Move("boxes", "end", "v/a", "A shelf holds {a} boxes.",
         ("The boxes fill {eq} shelves.",), "How many shelves do the boxes fill?"),
    Move("money", "money", "v+a", "{He} earns ${a} more.", *_CASH_NOW),
    Move("money", "money", "v+a", "{His} mother gives {him} ${a} more.", *_CASH_NOW),
    Move("money", "money", "v-a", "{He} spends ${a} on lunch.", *_CASH_LEFT),
    Move("money", "money", "v-a", "{He} gives ${a} to {o}.", *_CASH_LEFT),
    Move("money", "money", "v-a", "A new hat costs {him} ${a}.", *_CASH_LEFT),
    Move("money", "money", "a*b v-s", "{He} buys {a} cups for ${b} each.",
         ("The cups cost {eq} dollars.", "{n} has {eq} dollars left."), "How many dollars does {n} have left?"),
    Move("money", "money", "a*b v+s", "{He} works for {a} hours at ${b} an hour.",
         ("The work pays {eq} dollars.", "{n} has {eq} dollars."), "How many dollars does {n} have now?"),
    Move("money", "money", "v*a", "{o} has {a} times as much money as {n}.",
         ("{o} has {eq} dollars.",), "How many dollars does {o} have?", swap=True),
    Move("money", "money", "v-a", "{o} has ${a} less than {n}.",
         ("{o} has {eq} dollars.",), "How many dollars does {o} have?", swap=True),
    Move("money", "need", "a-v", "{He} wants a bike that costs ${a}.",
         ("{n} needs {eq} more dollars.",), "How many more dollars does {n} need?"),
    Move("money", "end", "v/a", "{He} spends all of it on pens for ${a} each.",
         ("{n} buys {eq} pens.",), "How many pens does {n} buy?"),
    Move("money", "end", "v/a", "{He} divides the money equally among {a} children.",
         ("Each child gets {eq} dollars.",), "How many dollars does each child get?"),
    Move("need", "end", "v/a", "{He} saves ${a} a week for it.",
         ("{n} needs {eq} weeks.",), "How many weeks does {n} need to save?"),
    Move("wage", "money", "v*a", "{He} works for {a} hours.",
         ("{n} earns {eq} dollars.",), "How many dollars does {n} earn?"),
    Move("saving", "money", "v*a", "{He} does so for {a} weeks.",
         ("{n} saves {eq} dollars.",), "How many dollars does {n} save?"),
    Move("price", "cost", "v*a", "{n} buys {a} tickets.",
         ("The tickets cost {eq} dollars.",), "How many dollars do the tickets cost?"),
    Move("cost", "cost", "v+a", "{He} also pays ${a} for food.",
         ("{n} pays {eq} dollars in all.",), "How many dollars does {n} pay in all?"),
    Move("cost", "cost", "v-a", "A coupon takes ${a} off.",
         ("{n} pays {eq} dollars.",), "How many dollars does {n} pay with the coupon?"),
    Move("cost", "money", "a-v", "{He} had ${a} at first.", *_CASH_LEFT),
    Move("cost", "end", "v/a", "A group of {a} people shares the cost equally.",
         ("Each person pays {eq} dollars.",), "How many dollars does each person pay?"),
    Move("pages", "pages", "v-a", "{He} reads {a} pages on Monday.",
         ("{eq} pages are left.",), "How many pages are left?"),
    Move("pages", "pages", "a*b v-s", "{He} reads {b} pages a day for {a} days.",
         ("{n} reads {eq} pages.", "{eq} pages are left."), "How many pages are left?"),
    Move("pages", "end", "v/a", "{He} plans to finish it at {a} pages a day.",
         ("{n} needs {eq} days.",), "How many days does {n} need?"),
    Move("reading", "read", "v*a", "{He} reads for {a} days.",
         ("{n} reads {eq} pages.",), "How many pages does {n} read?"),
    Move("read", "read", "v+a", "The next day {he} reads {a} pages.",
         ("{n} reads {eq} pages in all.",), "How many pages does {n} read in all?"),
    Move("read", "pages", "a-v", "The book has {a} pages.",
         ("{eq} pages are left.",), "How many pages are left?"),
    Move("road", "road", "v+a", "It drives {a} km more in the afternoon.",
         ("It drives {eq} km.",), "How many km does it drive in all?"),
    Move("road", "ahead", "a-v", "The whole trip is {a} km.",
         ("{eq} km are left.",), "How many km are left?"),
    Move("ahead", "end", "v/a", "From then on it goes {a} km an hour.",
         ("The rest takes {eq} hours.",), "How many hours does the rest take?"),
    Move("speed", "road", "v*a", "It goes on like this for {a} hours.",
         ("It drives {eq} km.",), "How many km does it go?"),
    Move("age", "age", "v+a", "{o} is {a} years older than {n}.",
         ("{o} is {eq} years old.",), "How old is {o}?", swap=True),
    Move("age", "age", "v-a", "{o} is {a} years younger than {n}.",
         ("{o} is {eq} years old.",), "How old is {o}?", swap=True),
    Move("age", "age", "v*a", "{o} is {a} times as old as {n}.",
         ("{o} is {eq} years old.",), "How old is {o}?", swap=True),
    Move("age", "end", "v+a", "In {a} years {he} will finish school.",
         ("{n} will be {eq} years old.",), "How old will {n} be then?"),
    Move("riders", "riders", "v-a", "At a stop {a} people get off.",
         ("{eq} people are on the bus.",), "How many people are on the bus now?"),
    Move("riders", "riders", "v+a", "Then {a} people get on.",
         ("{eq} people are on the bus.",), "How many people are on the bus now?"),
    Move("riders", "end", "a-v", "The bus has {a} seats.",
         ("{eq} seats are empty.",), "How many seats are empty?"),
    Move("class", "class", "v+a", "Then {a} new students join.",
         ("The class has {eq} students.",), "How many students are in the class now?"),
    Move("class", "class", "v-a", "Today {a} students are ill at home.",
         ("{eq} students are at school.",), "How many students are at school?"),
    Move("class", "groups", "v/a", "The students form groups of {a}.",
         ("There are {eq} groups.",), "How many groups are there?"),
    Move("class", "end", "v*a", "Every student needs {a} books.",
         ("The students need {eq} books.",), "How many books do the students need?"),
    Move("groups", "sheets", "v*a", "Every group gets {a} sheets of paper.",
         ("The groups get {eq} sheets.",), "How many sheets do the groups get?"),
    Move("sheets", "end", "a-v", "The teacher brought {a} sheets.",
         ("{eq} sheets are left.",), "How many sheets are left?"),
    Move("seatrows", "seats", "v*a", "Every row has {a} seats.",
         ("The hall has {eq} seats.",), "How many seats does the hall have?"),
    Move("seats", "seats", "v+a", "Workers bring in {a} more seats.",
         ("The hall has {eq} seats.",), "How many seats does the hall have now?"),
    Move("seats", "end", "v-a", "People take {a} of the seats.",
         ("{eq} seats are free.",), "How many seats are free?"),
    Move("plantrows", "plants", "v*a", "Every row has {a} plants.",
         ("The garden has {eq} plants.",), "How many plants are in the garden?"),
    Move("plants", "plants", "v-a", "The frost kills {a} plants.",
         ("{eq} plants are left.",), "How many plants are left?"),
    Move("plants", "end", "v/a", "{n} needs a bottle of plant food for every {a} plants.",
         ("{n} needs {eq} bottles.",), "How many bottles does {n} need?"),
    Move("water", "water", "v-a", "Then {a} litres leak out.",
         ("{eq} litres are left.",), "How many litres are left?"),
    Move("water", "water", "v+a", "{n} pours in {a} litres.",
         ("The tank holds {eq} litres.",), "How many litres are in the tank now?"),
    Move("water", "water", "a*b v-s", "{n} takes out {a} buckets of {b} litres each.",
         ("The buckets hold {eq} litres.", "{eq} litres are left."), "How many litres are left in the tank?"),
    Move("water", "end", "v/a", "{n} fills all of the water into cans of {a} litres.",
         ("{n} fills {eq} cans.",), "How many cans does {n} fill?"),
    Move("practice", "practice", "v+a", "On Tuesday {he} plays for {a} minutes.",
         ("{n} plays for {eq} minutes.",), "How many minutes does {n} play in all?"),
    Move("practice", "practice", "v*a", "{o} plays {a} times as long as {n}.",
         ("{o} plays for {eq} minutes.",), "How many minutes does {o} play?", swap=True),
    Move("points", "points", "v+a", "In the next game {he} scores {a} points.",
         ("{n} has {eq} points.",), "How many points does {n} have in all?"),
    Move("points", "points", "v-a", "A mistake costs {him} {a} points.",
         ("{n} has {eq} points left.",), "How many points does {n} have left?"),
    Move("points", "points", "v*a", "{o} scores {a} times as many points as {n}.",
         ("{o} has {eq} points.",), "How many points does {o} have?", swap=True),
    Move("trays", "rolls", "v*a", "Every tray holds {a} rolls.",
         ("The trays hold {eq} rolls.",), "How many rolls are there?"),
    Move("rolls", "rolls", "v-a", "Before noon {a} rolls are sold.",
         ("{eq} rolls are left.",), "How many rolls are left?"),
    Move("rolls", "end", "v/a", "The baker packs the rolls into bags of {a}.",
         ("The rolls fill {eq} bags.",), "How many bags are there?"),
    Move("hens", "eggs", "v*a", "{He} collects the eggs for {a} days.",
         ("{n} collects {eq} eggs.",), "How many eggs does {n} collect?"),
    Move("eggs", "eggs", "v-a", "{He} breaks {a} eggs.",
         ("{n} has {eq} eggs left.",), "How many eggs does {n} have left?"),
    Move("eggs", "boxes", "v/a", "{He} packs the eggs into boxes of {a}.",
         ("{n} fills {eq} boxes.",), "How many boxes does {n} fill?"),
    Move("rope", "rope", "v-a", "{He} cuts off {a} metres.",
         ("{eq} metres are left.",), "How many metres are left?"),
    Move("rope", "end", "v/a", "{He} cuts the rope into pieces of {a} metres.",
         ("There are {eq} pieces.",), "How many pieces are there?"),
)  # fmt: skip
