"""What arrives from a browser, as typed values: the one seam between a page and this server.

Anybody who can open the page can send anything. `parsing.parse` turns each store, id and typed value into a frozen
value of bounded size, once, before any of our code looks at it; what no page of ours can have sent raises
`parsing.Malformed`, which is answered with one sentence and HTTP 400. What a user can type wrongly on an honest page
passes, and is said on the page.

Names of models and views are held against the engine. Fields that a page of another version has beside ours are left
out.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from apps.explorer.engine.engine import Engine
from apps.explorer.page.alignment import ALIGNED, MOST
from apps.explorer.page.exports import KINDS
from apps.explorer.page.selection import clean, neuron_at
from workbench.intervene import ExpertNeurons, Neurons

__all__ = [
    "Aligned", "Asked", "Checked", "Checking", "Choice", "Clicks", "Continuing", "Dismissed", "Display", "Done",
    "Edited", "Edits", "Farewell", "Go", "Link", "Loaded", "ModelName", "Notice",
    "Notices", "Params", "Pins", "PinsAsked", "Pressed", "Seen", "Selection", "Session", "SheetAsked", "Shown", "Sizes",
    "Step", "Stopped", "Swapped", "Take", "Text", "Typed", "Visit", "Word",
]  # fmt: skip

_LONGEST = 2_000_000  # letters of a text; a whole request is bounded to about as many bytes
_MOST = 200_000  # tokens of a prompt, rows of a table
_KEPT = 200  # notices
_DIGITS = 22  # of a whole number: as many as a browser writes

# --- names and numbers ------------------------------------------------------------------------------------------------


def _is_offered(name: str, info: ValidationInfo) -> str:
    engine = info.context
    if engine is not None and not engine.settings.any_model and name not in engine.settings.models:
        raise ValueError("the name of a model that is offered")
    return name


def _is_alignment(by: str) -> str:
    if by not in ALIGNED:
        raise ValueError(f"one of {', '.join(ALIGNED)}")
    return by


def _among(views: Callable[[Engine], Collection[str]]) -> AfterValidator:
    """A name that is among some of an engine's views."""

    def check(name: str, info: ValidationInfo) -> str:
        if info.context is not None and name not in views(info.context):
            raise ValueError("the name of a view that is there")
        return name

    return AfterValidator(check)


Text = Annotated[str, Strict(), Field(max_length=_LONGEST)]
Name = Annotated[str, Strict(), Field(max_length=4096)]  # also a path
Word = Annotated[str, Strict(), Field(max_length=400)]
Session = Annotated[str, Strict(), Field(min_length=1, max_length=64)]
ModelName = Annotated[Name, AfterValidator(_is_offered)]
ViewName = Annotated[Name, _among(lambda engine: engine.views)]
StandingName = Annotated[Name, _among(lambda engine: engine.standing)]  # one that does not follow the selection
PromptName = Annotated[Name, _among(lambda engine: engine.of_prompt)]  # one whose analysis shares the prompt's pass

Whole = Annotated[int, Strict(), Field(gt=-(10**_DIGITS), lt=10**_DIGITS)]
Count = Annotated[int, Strict(), Field(ge=0, le=10**9)]
Real = Annotated[float, Strict(), AllowInfNan(False)]
Flag = Annotated[bool, Strict()]
Typed = Flag | Whole | Real | Text | None  # the value of a control, right or wrong
Clicks = Whole | Real | None
Choice = Word | None
Params = Annotated[
    dict[Name, Annotated[dict[Name, Typed], Field(max_length=200)]], Field(max_length=1000)
]  # by view and name
Display = Params
Done = Annotated[dict[Name, Word], Field(max_length=1000)]  # how each analysis stands, in words
Pins = Annotated[tuple[Text, ...], Field(max_length=MOST)]  # prompts that are kept beside each other
Aligned = Annotated[str, Strict(), AfterValidator(_is_alignment)]
Edits = Annotated[tuple[Word, ...], Field(max_length=500)]  # phrases of interventions


def _cleaned(given: Any) -> dict[str, Any]:
    if given is not None and (not isinstance(given, Mapping) or len(given) > _KEPT):
        raise ValueError("a small mapping")
    return clean(given)


# As `selection.clean` leaves it: a figure may name more dimensions than a selection has.
Selection = Annotated[dict[str, Any], BeforeValidator(_cleaned)]


class Store(BaseModel):
    """A frozen value; what else arrives with it is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


# --- runs -------------------------------------------------------------------------------------------------------------


class Asked(Store):
    """A request for a run, as a page keeps it.

    names: analyses to compute; None: not known yet. job: the id of the job that computes them, "" where there was
    nothing to compute, or it has not begun. boot: names the server that was asked, also where it has no job yet; ""
    for any. ended: it gave no result, and is not tried again.
    """

    id: Word
    model: ModelName
    text: Text
    params: Params = Field(default_factory=dict)
    chat: Flag = False
    edits: Edits = ()
    names: Annotated[tuple[PromptName, ...], Field(max_length=1000)] | None = None
    job: Word = ""
    boot: Word = ""
    ended: Flag = False


class Sizes(Store):
    """What a page knows of a model's sizes."""

    n_layers: Count
    n_heads: Count
    d_mlp: Count = 0
    experts: Annotated[tuple[Count, ...], Field(max_length=1000)] = ()
    n_experts: Count = 0
    d_expert: Count = 0

    def neurons(self, layer: int) -> int:
        """How many neurons a layer has; in a mixture they are counted through its experts."""
        return self.n_experts * self.d_expert if layer in self.experts else self.d_mlp

    def neuron(self, layer: int, number: int) -> Neurons | ExpertNeurons:
        """The unit that a number stands for."""
        if layer in self.experts and self.d_expert:
            return ExpertNeurons(layer, number // self.d_expert, (number % self.d_expert,))
        return neuron_at(layer, number)


class Shown(Asked):
    """A run whose results are there. display: how it is drawn, by view; it has a store of its own."""

    tokens: Annotated[tuple[Text, ...], Field(min_length=1, max_length=_MOST)]
    sizes: Sizes
    keys: Annotated[dict[Name, Word], Field(max_length=1000)] = Field(default_factory=dict)
    weights: Word = ""
    seconds: Real = 0.0
    display: Display = Field(default_factory=dict, exclude=True)

    def displayed(self, display: Mapping[str, Any] | None) -> "Shown":
        """The same run, drawn in another way."""
        return self.model_copy(update={"display": dict(display or {})})


class Seen(Store):
    """Which view is open, and which of its figures and tables."""

    name: ViewName
    figure: Count = 0

    @model_validator(mode="after")
    def _is_there(self, info: ValidationInfo) -> "Seen":
        if info.context is not None:
            view = info.context.views[self.name]
            if self.figure >= max(1, len(view.figures) + len(view.tables)):
                raise ValueError("one of the view's figures and tables")
        return self


class Loaded(Store):
    """The model that is ready, or (failed: the id of the job) the one that did not load. elsewhere: views that are of
    what it has not."""

    model: Name
    hash: Word = ""
    elsewhere: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    failed: Word = ""


class Go(Store):
    """Run was pressed: the texts as they stood then. other: what is compared with; None where the page's is meant."""

    text: Text
    other: Text | None = None
    clicks: Typed = None


class Continuing(Store):
    """The job that writes more tokens. chat: of a prompt that is a chat."""

    job: Word
    model: ModelName
    chat: Flag = False


class Checking(Store):
    """A check that starts as soon as its params are shown."""

    name: ViewName
    params: Params


class Pressed(Store):
    """A button that starts an analysis was pressed."""

    start: Name
    clicks: Typed = None


class Stopped(Store):
    """A button that cancels a job was pressed; `all`: for everybody who waits for it."""

    cancel: Word
    all: Word | None = None


class Checked(Store):
    """The button of a claim was pressed: the claim's title."""

    check: Name


class Swapped(Store):
    """A state of the compared prompt, at token origin, is to stand for one of the shown prompt at the same depth."""

    depth: Count | Annotated[float, Strict(), Field(ge=0, lt=10**9)]
    pos: Count
    origin: Count
    clicks: Typed = None


class Edited(Store):
    """An intervention was chosen among those that are offered, or one was taken back."""

    edit: Word | None = None
    restore: Word | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "Edited":
        if (self.edit is None) == (self.restore is None):
            raise ValueError("an intervention that is chosen or taken back")
        return self


class SheetAsked(Store):
    """A button that opens the sheet of the model was pressed."""

    sheet: Literal["model"]


class Dismissed(Store):
    """A notice was dismissed."""

    dismiss: Word


class Notice(Store):
    """Something that went wrong, said until it is dismissed. news: nothing went wrong, and it is to be known."""

    id: Word
    text: Text
    news: bool = False


def _latest(given: Any) -> Any:
    return given[-_KEPT:] if isinstance(given, list) else given


Notices = Annotated[tuple[Notice, ...], BeforeValidator(_latest)]


class Take(Store):
    """An export was asked for. rows: those of a table that are shown, in their order."""

    kind: Literal[tuple(KINDS)]  # type: ignore[valid-type]  # pydantic reads it, when it runs
    rows: Annotated[tuple[Count, ...], Field(max_length=_MOST)] | None = None


class Farewell(Store):
    """A window is being closed."""

    session: Session
    window: Session


# --- links: anybody may have written them, so that what is no good is left out and said -------------------------------


class Link(Store):
    """What the address asked for. broken: the part that could not be read, "" where all could."""

    text: Text = ""
    model: Name = ""
    weights: Word = ""
    other: Text = ""
    other_model: Name = Field(default="", alias="otherModel")
    compare: Word = ""
    params: Params = Field(default_factory=dict)
    display: Display = Field(default_factory=dict)
    select: Selection = Field(default_factory=dict)
    view: Seen | None = None
    edits: Edits = ()
    pins: Pins = ()
    aligned: Aligned = "token"
    chat: Flag = False
    broken: Word = ""

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, given: Any, info: ValidationInfo) -> Any:
        """The parts that can be read."""
        if not isinstance(given, Mapping):
            raise ValueError("the parts of a link")
        kept = {name: given[name] for name, kind in _LINK_TEXTS.items() if _fits(kind, given.get(name))}
        kept |= {"chat": bool(given.get("chat")), "select": clean(given.get("select"))}
        if isinstance(display := given.get("display"), Mapping):
            kept["display"] = {name: part for name, part in display.items() if _fits(_PARAMS, {name: part})}
        kept["view"] = _linked_view(given.get("view"), info)
        for name, kind in _LINK_PARTS:
            if given.get(name) is not None:
                kept |= {name: given[name]} if _fits(kind, given[name]) else {"broken": kept.get("broken") or name}
        return kept


class PinsAsked(Store):
    """Small multiples of the open view are asked for. sign: what they are to stand for, said back with the answer."""

    texts: Pins
    view: Seen
    aligned: Aligned = "token"
    sign: Text = ""


class Step(Store):
    """Something that was drawn in a visit. at: milliseconds since 1970."""

    link: Link
    at: Real | Whole = 0
    title: Word = ""
    said: Text = ""
    note: Text = ""
    star: Flag = False


class Visit(Store):
    """A visit was asked for as one page."""

    steps: Annotated[tuple[Step, ...], Field(max_length=1000)]


_PARAMS, _EDITS, _PINS = TypeAdapter(Params), TypeAdapter(Edits), TypeAdapter(Pins)
_LINK_TEXTS = {
    "text": TypeAdapter(Text), "model": TypeAdapter(Name), "weights": TypeAdapter(Word), "other": TypeAdapter(Text),
    "otherModel": TypeAdapter(Name), "compare": TypeAdapter(Word), "broken": TypeAdapter(Word),
}  # fmt: skip


_LINK_PARTS = (("params", _PARAMS), ("edits", _EDITS), ("pins", _PINS), ("aligned", TypeAdapter(Aligned)))


def _fits(kind: TypeAdapter[Any], value: Any) -> bool:
    try:
        kind.validate_python(value)
    except ValidationError:
        return False
    return True


def _linked_view(given: Any, info: ValidationInfo) -> Any:
    """The view that a link names, its first figure where it names none; None where it is none of ours."""
    for figure in (given.get("figure"), 0) if isinstance(given, Mapping) else ():
        try:
            return Seen.model_validate({"name": given.get("name"), "figure": figure}, context=info.context)
        except ValidationError:
            continue
    return None
