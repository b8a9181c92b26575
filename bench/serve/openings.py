"""Openings of stories, as many different ones as are asked for, and their sampling: the same for everyone, by seed."""

import random

NAMES = ["Tom", "Lily", "Ben", "Mia", "Sam", "Anna", "Max", "Sue", "Tim", "Lucy", "Jack", "Emma", "Leo", "Zoe", "Ned"]
PLACES = ["the park", "the forest", "a big house", "the beach", "a small village", "the farm", "the lake", "the zoo"]
THINGS = ["a red ball", "a blue kite", "an old box", "a shiny stone", "a toy car", "a little bird", "a lost dog"]
STARTS = [
    "Once upon a time, there was a {mood} child named {name}. {name} liked to play in {place}.",
    "One day, {name} went to {place} and found {thing}.",
    "{name} and {friend} were best friends. They lived near {place}, and they had {thing}.",
    "There was {thing} in {place}. {name} was {mood} and wanted to see it.",
    "In the morning, {name} woke up and felt {mood}. \"Let us go to {place}!\" said {friend}.",
]
MOODS = ["happy", "sad", "curious", "brave", "sleepy", "kind"]


def opening(number):
    """The opening of this number; different numbers give different ones, most of them with a common beginning."""
    chance = random.Random(number)
    name, friend = chance.sample(NAMES, 2)
    words = {"name": name, "friend": friend, "place": chance.choice(PLACES), "thing": chance.choice(THINGS)}
    text = chance.choice(STARTS).format(mood=chance.choice(MOODS), **words)
    return f"{text} They counted to {number}, and then"


def long_opening(number, words):
    """An opening of at least so many words."""
    chance, text = random.Random(-1 - number), opening(number)
    while len(text.split()) < words:
        text += " " + opening(chance.randrange(1 << 20))
    return text


def sampling(number):
    """Greedy for even numbers, seeded for odd ones: OpenAI's fields, and the command's options."""
    if number % 2 == 0:
        return {"temperature": 0}
    chance = random.Random(number)
    temperature, top_p = chance.choice([0.6, 0.8, 1.0]), chance.choice([0.9, 0.95, 1.0])
    return {"temperature": temperature, "top_p": top_p, "top_k": chance.choice([0, 40]), "seed": number}
