"""What is asked in the benchmark of grounded chat, of the documents of `python_docs.py`."""

from __future__ import annotations

POPULAR: tuple[tuple[str, ...], ...] = (
    (
        "Is __exit__ called when an exception is raised inside of a with block?",
        "What happens to a with statement's context manager if its block raises an exception?",
        "An exception comes out of the body of a with statement: does __exit__ still run?",
        "Does the with statement call __exit__ after an error in its suite?",
    ),
    (
        "When is the else clause of a try statement executed?",
        "What is the else clause of try ... except for?",
        "In a try statement, when does the code in else run?",
        "Is else of a try statement executed if there was no exception?",
    ),
    (
        "What does the comma option of a format specification do?",
        "How do I get commas as thousands separators in a format string?",
        "Which option of a format specification separates thousands with a comma?",
        "How is a number formatted with ',' in its format specification?",
    ),
    (
        "Which debugger command goes on until the current function returns?",
        "How do I continue execution until the current function returns in pdb?",
        "I am inside of a function in the Python debugger: how do I run it until it returns?",
        "What does the return command of the debugger do?",
    ),
    (
        "Do instances of a class with __slots__ have a __dict__?",
        "What does __slots__ do to the __dict__ of instances?",
        "If a class declares __slots__, can I still assign attributes that are not listed there?",
        "Why does a class with __slots__ not have a __dict__ for each instance?",
    ),
    (
        "What does a match statement do with a wildcard pattern?",
        "When does the wildcard pattern _ of a match statement succeed?",
        "What does case _ match?",
        "Which pattern always succeeds and binds no name?",
    ),
    (
        "How are chained comparisons like a < b < c evaluated?",
        "Is b evaluated twice in a < b < c?",
        "What is x < y <= z equivalent to?",
        "Can comparisons be chained, and how are they then evaluated?",
    ),
    (
        "What is __all__ in a module?",
        "Which names does from module import * bind?",
        "What does import * import if a module defines __all__?",
        "How does a module say which names from module import * takes?",
    ),
)
"""Eight things that four people want to know, each in words of their own."""

RARE: tuple[str, ...] = (
    "How do I split a string at line boundaries?",
    "What does the yield expression return after send() is called?",
    "How are complex numbers written as literals?",
    "What is the difference between __getattr__ and __getattribute__?",
    "What does a global statement do?",
    "Which operators bind more tightly than multiplication?",
    "What does an await expression suspend?",
    "How is a slice of a sequence with a negative step evaluated?",
)
"""Eight that one person wants to know."""

WARM_UP = "What does a lambda expression yield?"
