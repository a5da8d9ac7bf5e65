"""What word problems are made of: beginnings that set a quantity up, and moves that change it.

A quantity has a kind ("held", "money", ...). A move reads one kind and makes another, so that moves chain into
stories of any length. In texts, {n} is the person of the story, {o} another one, {he} {him} {his} pronouns, {x} the
things, {v} the quantity at the beginning, {a} and {b} new numbers, and in a move's lines {eq} the equation. A move's
`steps` are its equations: `v` is the quantity so far and `s` the result of the line before.
"""

import re
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
    steps: tuple[str, ...]
    text: str
    lines: tuple[str, ...]
    question: str
    swap: bool
    food: bool


GIRLS = [
    "Mia", "Anna", "Zoe", "Lily", "Ruth", "Nina", "Sara", "Emma", "Maya", "Jane", "Ella", "Rosa", "Amy", "Leah",
    "Iris", "Tina",
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

# Kind, and the largest quantity where it is small | text
_BEGINNINGS = """
held | {n} has {v} {x}.
held | {n} buys {v} {x} at the market.
held | {n} counts {v} {x} in {his} bag.
held | {n}'s aunt sends {him} {v} {x}.
money | {n} has ${v}.
money | {n} gets ${v} for {his} birthday.
money | {n} earns ${v} by washing cars.
wage 20 | {n} earns ${v} an hour.
saving 20 | {n} saves ${v} every week.
price 20 | A ticket costs ${v}.
pages | {n}'s book has {v} pages.
reading 30 | {n} reads {v} pages a day.
road | A bus drives {v} km in the morning.
speed 60 | A train goes {v} km an hour.
age 16 | {n} is {v} years old.
riders | There are {v} people on a bus.
class | There are {v} students in {n}'s class.
seatrows 15 | A hall has {v} rows of seats.
plantrows 15 | {n}'s garden has {v} rows of plants.
water | A tank holds {v} litres of water.
practice | {n} plays the piano for {v} minutes on Monday.
points | {n} scores {v} points in the first game.
trays 15 | A baker fills {v} trays with rolls.
hens 20 | {n}'s hens lay {v} eggs a day.
rope | {n} has a rope {v} metres long.
"""

# Kind, kind that it makes, steps, flags | text | lines of the rationale | question after "How"
_MOVES = """
held held v+a | {He} buys {a} more. | {n} has {eq} {x}. | many {x} does {n} have now
held held v+a | {o} gives {him} {a} more. | {n} has {eq} {x}. | many {x} does {n} have now
held held v+a | Then {he} gets {a} more {x} from {his} uncle. | {n} has {eq} {x}. | many {x} does {n} have now
held held v-a | {He} gives {a} of them to {o}. | {n} has {eq} {x} left. | many {x} does {n} have left
held held v-a | {He} loses {a} {x} on the way home. | {n} has {eq} {x} left. | many {x} does {n} have left
held held v-a | {He} sells {a} of the {x}. | {n} has {eq} {x} left. | many {x} does {n} have left
held held v-a food | {He} eats {a} {x}. | {n} has {eq} {x} left. | many {x} does {n} have left
held held v-a food | {He} bakes a cake with {a} of them. | {n} has {eq} {x} left. | many {x} does {n} have left
held held v*a swap | {o} has {a} times as many {x} as {n}. | {o} has {eq} {x}. | many {x} does {o} have
held held v+a swap | {o} has {a} more {x} than {n}. | {o} has {eq} {x}. | many {x} does {o} have
held held v-a swap | {o} has {a} fewer {x} than {n}. | {o} has {eq} {x}. | many {x} does {o} have
held held a*b,v+s | {He} buys {a} packs of {b} {x} each. | The packs hold {eq} {x}. / {n} has {eq} {x}.
  | many {x} does {n} have now
held held a*b,v-s | {He} fills {a} bags with {b} {x} each. | The bags hold {eq} {x}. / {eq} {x} are left over.
  | many {x} are left over
held held a*b,v-s | {He} gives {b} {x} to each of {a} friends. | {n} gives away {eq} {x}. / {n} has {eq} {x} left.
  | many {x} does {n} have left
held both v+a | {o} has {a} {x}. | Together they have {eq} {x}. | many {x} do they have together
held both v+a,v+s | {o} has {a} more {x} than {n}. | {o} has {eq} {x}. / Together they have {eq} {x}.
  | many {x} do they have together
held both v*a,v+s | {o} has {a} times as many {x} as {n}. | {o} has {eq} {x}. / Together they have {eq} {x}.
  | many {x} do they have together
held end v-a | {o} has only {a} {x}. | {n} has {eq} more {x}. | many more {x} does {n} have than {o}
held share v/a | {He} shares them equally among {a} friends. | Each friend gets {eq} {x}.
  | many {x} does each friend get
held boxes v/a | {He} packs them into boxes of {a}. | {n} fills {eq} boxes. | many boxes does {n} fill
held end v/a | {He} puts them equally into {a} baskets. | Each basket holds {eq} {x}. | many {x} are in each basket
held money v*a | {He} sells all of them for ${a} each. | {n} gets {eq} dollars. | many dollars does {n} get
both both v-a | They give away {a} of all their {x}. | They have {eq} {x} left. | many {x} do they have left together
both share v/a | They share all of them equally among {a} friends. | Each friend gets {eq} {x}.
  | many {x} does each friend get
share end v+a | One of the friends had {a} {x} before. | That friend has {eq} {x}. | many {x} does that friend have now
share end v-a | One friend gives {a} of them back. | That friend has {eq} {x} left.
  | many {x} does that friend have left
boxes boxes v-a | {a} of the boxes are sent away. | {eq} boxes are left. | many boxes are left
boxes money v*a | {He} sells every box for ${a}. | {n} gets {eq} dollars. | many dollars does {n} get
boxes end v/a | A shelf holds {a} boxes. | The boxes fill {eq} shelves. | many shelves do the boxes fill
money money v+a | {He} earns ${a} more. | {n} has {eq} dollars. | many dollars does {n} have now
money money v+a | {His} mother gives {him} ${a} more. | {n} has {eq} dollars. | many dollars does {n} have now
money money v-a | {He} spends ${a} on lunch. | {n} has {eq} dollars left. | many dollars does {n} have left
money money v-a | {He} gives ${a} to {o}. | {n} has {eq} dollars left. | many dollars does {n} have left
money money v-a | A new hat costs {him} ${a}. | {n} has {eq} dollars left. | many dollars does {n} have left
money money a*b,v-s | {He} buys {a} cups for ${b} each. | The cups cost {eq} dollars. / {n} has {eq} dollars left.
  | many dollars does {n} have left
money money a*b,v+s | {He} works for {a} hours at ${b} an hour. | The work pays {eq} dollars. / {n} has {eq} dollars.
  | many dollars does {n} have now
money money v*a swap | {o} has {a} times as much money as {n}. | {o} has {eq} dollars. | many dollars does {o} have
money money v-a swap | {o} has ${a} less than {n}. | {o} has {eq} dollars. | many dollars does {o} have
money need a-v | {He} wants a bike that costs ${a}. | {n} needs {eq} more dollars. | many more dollars does {n} need
money end v/a | {He} spends all of it on pens for ${a} each. | {n} buys {eq} pens. | many pens does {n} buy
money end v/a | {He} divides the money equally among {a} children. | Each child gets {eq} dollars.
  | many dollars does each child get
need end v/a | {He} saves ${a} a week for it. | {n} needs {eq} weeks. | many weeks does {n} need to save
wage money v*a | {He} works for {a} hours. | {n} earns {eq} dollars. | many dollars does {n} earn
saving money v*a | {He} does so for {a} weeks. | {n} saves {eq} dollars. | many dollars does {n} save
price cost v*a | {n} buys {a} tickets. | The tickets cost {eq} dollars. | many dollars do the tickets cost
cost cost v+a | {He} also pays ${a} for food. | {n} pays {eq} dollars in all. | many dollars does {n} pay in all
cost cost v-a | A coupon takes ${a} off. | {n} pays {eq} dollars. | many dollars does {n} pay with the coupon
cost money a-v | {He} had ${a} at first. | {n} has {eq} dollars left. | many dollars does {n} have left
cost end v/a | A group of {a} people shares the cost equally. | Each person pays {eq} dollars.
  | many dollars does each person pay
pages pages v-a | {He} reads {a} pages on Monday. | {eq} pages are left. | many pages are left
pages pages a*b,v-s | {He} reads {b} pages a day for {a} days. | {n} reads {eq} pages. / {eq} pages are left.
  | many pages are left
pages end v/a | {He} plans to finish it at {a} pages a day. | {n} needs {eq} days. | many days does {n} need
reading read v*a | {He} reads for {a} days. | {n} reads {eq} pages. | many pages does {n} read
read read v+a | The next day {he} reads {a} pages. | {n} reads {eq} pages in all. | many pages does {n} read in all
read pages a-v | The book has {a} pages. | {eq} pages are left. | many pages are left
road road v+a | It drives {a} km more in the afternoon. | It drives {eq} km. | many km does it drive in all
road ahead a-v | The whole trip is {a} km. | {eq} km are left. | many km are left
ahead end v/a | From then on it goes {a} km an hour. | The rest takes {eq} hours. | many hours does the rest take
speed road v*a | It goes on like this for {a} hours. | It drives {eq} km. | many km does it go
age age v+a swap | {o} is {a} years older than {n}. | {o} is {eq} years old. | old is {o}
age age v-a swap | {o} is {a} years younger than {n}. | {o} is {eq} years old. | old is {o}
age age v*a swap | {o} is {a} times as old as {n}. | {o} is {eq} years old. | old is {o}
age end v+a | In {a} years {he} will finish school. | {n} will be {eq} years old. | old will {n} be then
riders riders v-a | At a stop {a} people get off. | {eq} people are on the bus. | many people are on the bus now
riders riders v+a | Then {a} people get on. | {eq} people are on the bus. | many people are on the bus now
riders end a-v | The bus has {a} seats. | {eq} seats are empty. | many seats are empty
class class v+a | Then {a} new students join. | The class has {eq} students. | many students are in the class now
class class v-a | Today {a} students are ill at home. | {eq} students are at school. | many students are at school
class groups v/a | The students form groups of {a}. | There are {eq} groups. | many groups are there
class end v*a | Every student needs {a} books. | The students need {eq} books. | many books do the students need
groups sheets v*a | Every group gets {a} sheets of paper. | The groups get {eq} sheets. | many sheets do the groups get
sheets end a-v | The teacher brought {a} sheets. | {eq} sheets are left. | many sheets are left
seatrows seats v*a | Every row has {a} seats. | The hall has {eq} seats. | many seats does the hall have
seats seats v+a | Workers bring in {a} more seats. | The hall has {eq} seats. | many seats does the hall have now
seats end v-a | People take {a} of the seats. | {eq} seats are free. | many seats are free
plantrows plants v*a | Every row has {a} plants. | The garden has {eq} plants. | many plants are in the garden
plants plants v-a | The frost kills {a} plants. | {eq} plants are left. | many plants are left
plants end v/a | {n} needs a bottle of plant food for every {a} plants. | {n} needs {eq} bottles.
  | many bottles does {n} need
water water v-a | Then {a} litres leak out. | {eq} litres are left. | many litres are left
water water v+a | {n} pours in {a} litres. | The tank holds {eq} litres. | many litres are in the tank now
water water a*b,v-s | {n} takes out {a} buckets of {b} litres each.
  | The buckets hold {eq} litres. / {eq} litres are left. | many litres are left in the tank
water end v/a | {n} fills all of the water into cans of {a} litres. | {n} fills {eq} cans. | many cans does {n} fill
practice practice v+a | On Tuesday {he} plays for {a} minutes. | {n} plays for {eq} minutes.
  | many minutes does {n} play in all
practice practice v*a swap | {o} plays {a} times as long as {n}. | {o} plays for {eq} minutes.
  | many minutes does {o} play
points points v+a | In the next game {he} scores {a} points. | {n} has {eq} points. | many points does {n} have in all
points points v-a | A mistake costs {him} {a} points. | {n} has {eq} points left. | many points does {n} have left
points points v*a swap | {o} scores {a} times as many points as {n}. | {o} has {eq} points. | many points does {o} have
trays rolls v*a | Every tray holds {a} rolls. | The trays hold {eq} rolls. | many rolls are there
rolls rolls v-a | Before noon {a} rolls are sold. | {eq} rolls are left. | many rolls are left
rolls end v/a | The baker packs the rolls into bags of {a}. | The rolls fill {eq} bags. | many bags are there
hens eggs v*a | {He} collects the eggs for {a} days. | {n} collects {eq} eggs. | many eggs does {n} collect
eggs eggs v-a | {He} breaks {a} eggs. | {n} has {eq} eggs left. | many eggs does {n} have left
eggs boxes v/a | {He} packs the eggs into boxes of {a}. | {n} fills {eq} boxes. | many boxes does {n} fill
rope rope v-a | {He} cuts off {a} metres. | {eq} metres are left. | many metres are left
rope end v/a | {He} cuts the rope into pieces of {a} metres. | There are {eq} pieces. | many pieces are there
"""


def _rows(table: str) -> list[list[str]]:
    """The cells of each row; a row that is too long goes on in a line that begins with a bar."""
    return [row.split(" | ") for row in re.sub(r"\n +\|", " |", table).strip().splitlines()]


def _beginning(head: str, text: str) -> Beginning:
    kind, *largest = head.split()
    return Beginning(kind, text, *map(int, largest))


def _move(head: str, text: str, lines: str, asked: str) -> Move:
    kind, to, steps, *flags = head.split()
    told = text, tuple(lines.split(" / ")), f"How {asked}?"
    return Move(kind, to, tuple(steps.split(",")), *told, "swap" in flags, "food" in flags)


BEGINNINGS = tuple(_beginning(*cells) for cells in _rows(_BEGINNINGS))
MOVES = tuple(_move(*cells) for cells in _rows(_MOVES))
