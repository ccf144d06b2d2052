"""Arguments: what does not fit is named in a sentence, what does is as the annotation has it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from annotated_types import Ge

from workbench.arguments import argument, fitted
from workbench.errors import InputError
from workbench.models.hooks import PATTERN, Hook, Z

FITTING = [
    (3, int, 3), (np.int64(3), int, 3), (torch.tensor(3), int, 3), (3, float, 3.0), (np.float32(0.5), float, 0.5),
    (True, bool, True), ("a", str, "a"), (None, None, None), (None, int | None, None),
    (print, Callable[[int], None], print),
    ([1, 2], tuple[int, ...], (1, 2)), ((1, 2), Sequence[int], (1, 2)), (np.arange(2), Sequence[int], (0, 1)),
    ((n for n in (1, 2)), Iterable[int], (1, 2)), (range(2), tuple[int, ...] | None, (0, 1)), ([], Sequence[Hook], ()),
    ({"a": 1}, Mapping[str, int], {"a": 1}), (1, Annotated[int, Ge(1)], 1), ("b", Literal["a", "b"], "b"),
    ("last", str | Sequence[int], "last"), ([0, -1], str | Sequence[int], (0, -1)), ([Z], Sequence[Hook], (Z,)),
    (object, Any, object), (torch.int8, torch.dtype, torch.int8),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind", "wanted"), FITTING, ids=range(len(FITTING)))
def test_what_fits_is_as_the_annotation_has_it(value, kind, wanted):
    found = argument("a", value, kind, "f()")
    assert found == wanted and type(found) is type(wanted)


ODD = [
    ("3", int, "a='3' of f(); expected a whole number."), (3.0, int, "a=3.0"), (True, int, "a=True"),
    (np.bool_(True), float, "expected a finite number"), (float("nan"), float, "a=nan"), ("1", float, "a='1'"),
    (1, bool, "expected True or False"), (b"a", str, "a=b'a' of f(); expected a text"), (0, int | None, None),
    (0, Annotated[int, Ge(1)], "expected a whole number from 1 on"), ("ab", Sequence[str], "a list, each item a text"),
    ({"a": 1}, Sequence[Any], "expected a list."),
    ([1, "2"], Sequence[int], "a[1]='2' of f(); expected a whole number"),
    (["z"], Sequence[Hook], "a[0]='z' of f(); expected a hook such as PATTERN"), (Hook, Hook, "the class Hook"),
    ([[1]], str | Sequence[int], "a[0]=[1]"), (5, Callable[[int], None] | None, "expected a function or None"),
    ({"a": "b"}, Mapping[str, int], "a['a']='b'"), (PATTERN, Sequence[Hook], "a Hook of f(); expected a list"),
    ("c", Literal["a", "b"], "expected 'a' or 'b'"), (5, Annotated[str, "a name"], "expected a name"),
    (torch.ones(()), Sequence[int], "a=a Tensor"), (torch.ones(2), Sequence[int], "a[0]=a Tensor"),
    (np.array(["1"]), Sequence[int], "a[0]=np.str_('1')"), (range(99), Sequence[str], "a[0]=0"),
    ({}, torch.dtype, "a dtype"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind", "said"), ODD, ids=range(len(ODD)))
def test_what_does_not_fit_is_named_with_what_would(value, kind, said):
    if said is None:
        assert argument("a", value, kind, "f()") == value
        return
    with pytest.raises(InputError) as caught:
        argument("a", value, kind, "f()")
    assert said in str(caught.value)


def test_a_function_is_called_with_what_fits_and_keeps_its_name_and_its_own_errors():
    @fitted("own")
    def some(first: Sequence[int], *rest: int, own: int = 0, last: Annotated[int, Ge(0)] = 1, **more: int) -> Any:
        """What it says."""
        return first, rest, own, last, more

    assert some([1], "x", own="mine", b="y") == ((1,), ("x",), "mine", 1, {"b": "y"})
    assert some.__doc__ == "What it says." and some.__name__ == "some"
    with pytest.raises(InputError, match=r"last=-1 of some\(\); expected a whole number from 0 on"):
        some([], last=-1)
    with pytest.raises(TypeError, match="missing 1 required"):
        some()
