"""What a text in CEL may be, how it is compiled, and how its refusal is said.

Rules kept: nothing in an evaluation can grow: ``map``, ``filter``, the joining of texts and lists, and regular
expressions are left out of the language; what may cost too much is refused before it is stored. Left out: what a text
speaks of (`nodes`, `filters`).

The library has traps. An error of an evaluation is a text, and true in Python, so only what is a bool counts;
the end of the iterations is raised all the same. A number in a comparison with a double has a point: ``1.0``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cel_expr_python.cel as cel  # noqa: PLR0402 # mypy finds the stub of a folder that is no package only so
from google.protobuf import descriptor_pool

from controller.conditions import expressions
from controller.core import errors

TEXT_LENGTH_MAX = 1_000  # characters; the worst that fits in takes a fifth of a second and 120 MiB
COMPILED_MAX = 4_096  # texts that are kept compiled, of 10 KiB each; a thousand triggers have two each
_MESSAGE_LENGTH_MAX = 300  # characters of what the compiler says
_LANGUAGE = """
stdlib:
  exclude_macros: [filter, map]
  exclude_functions:
    - name: _+_
      overloads: [{id: add_bytes}, {id: add_list}, {id: add_string}]
    - name: matches
"""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A text that may be evaluated.

    Args:
        expression: What evaluates it.
        tree: What it is made of.
    """

    expression: cel.Expression
    tree: expressions.Tree

    def truth(self, activation: cel.Activation) -> bool | None:
        """Evaluate it; None where it fails, or is stopped."""
        try:
            found = self.expression.eval(activation).value()
        except RuntimeError:  # its iterations are used up
            return None
        return found if isinstance(found, bool) else None


def environment(variables: Mapping[str, cel.Type], pool: descriptor_pool.DescriptorPool | None = None) -> cel.Env:
    """Make what texts over some variables are compiled in.

    Args:
        variables: By name.
        pool: Where the messages among their types are declared.
    """
    numbers = {"double": cel.Type.DOUBLE, "int": cel.Type.INT, "uint": cel.Type.UINT}
    divisors = [
        cel.Overload(f"divisor_{name}", each, [each], is_member=False, impl=_divisor) for name, each in numbers.items()
    ]
    return cel.NewEnv(
        descriptor_pool=pool,
        config=cel.NewEnvConfigFromYaml(_LANGUAGE),
        variables=variables,
        functions=[cel.FunctionDecl(expressions.DIVISOR, divisors)],
    )


def compiled(environment: cel.Env, text: str, sizes: expressions.Sizes) -> Compiled:
    """Compile a text that is taken without more ado.

    Args:
        environment: What the text speaks of.
        text: In CEL.
        sizes: What the lists and maps that it speaks of may hold.

    Raises:
        ValueError: Why it cannot be used.
    """
    try:
        expression = environment.compile(text)
    except RuntimeError as error:
        raise ValueError(_complaint(str(error))) from error
    if expression.return_type() != cel.Type.BOOL:
        raise ValueError(f"it gives {expression.return_type().name()}, and must give a bool")
    serialized = expression.serialize()
    tree = expressions.read(serialized)
    cost = expressions.cost(tree, sizes)
    if cost > expressions.COST_MAX:
        raise ValueError(f"it may take {cost:,} steps, and at most {expressions.COST_MAX:,} are allowed")
    return Compiled(environment.deserialize(expressions.guarded(serialized)), tree)


def checked(text: str, field: str, over: str, compile_text: Callable[[str], Compiled]) -> Compiled:
    """Compile a text that somebody gave.

    Args:
        text: In CEL.
        field: What the refusal calls the text.
        over: What it speaks of, in words.
        compile_text: Compiles it, or raises a ValueError that says why not.

    Raises:
        InvalidRequestError: It cannot be used.
    """
    try:
        _check_readable(text)
        return compile_text(text)
    except ValueError as error:
        raise errors.InvalidRequestError(
            f"cannot use {field} {text[:TEXT_LENGTH_MAX]!r}: {error}",
            code="invalid_condition",
            field=field,
            value=text[:TEXT_LENGTH_MAX],
            rule=f"CEL of at most {TEXT_LENGTH_MAX} characters over {over} that gives a bool",
        ) from error


def _divisor(by: float) -> float:
    """Let nothing be divided by zero, which of doubles is an infinity to the library, and above any threshold."""
    if by == 0:
        raise ZeroDivisionError("division by zero")
    return by


def _check_readable(text: str) -> None:
    if len(text) > TEXT_LENGTH_MAX:
        raise ValueError(f"it is longer than {TEXT_LENGTH_MAX} characters")
    text.encode()  # refuses here what the library could not read


def _complaint(text: str) -> str:
    """Take what the compiler complains of first out of its text, without its own picture of the expression."""
    first = text.partition("\n")[0].partition("ERROR: <input>:")[2] or text.partition("\n")[0]
    return first.removesuffix(" [INVALID_ARGUMENT]")[:_MESSAGE_LENGTH_MAX]
