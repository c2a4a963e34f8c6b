"""Records: their fields come from annotations, however the interpreter keeps these."""

from rankguard.record import Record, RecordType, from_data, to_data


class Plain(Record):
    """As Python 3.13 and older have it."""

    rank: int
    text: str = "none"


def test_fields_are_taken_from_what_python_3_14_has_instead_of_annotations():
    """There a class body holds a function (PEP 649). Not the real thing, which is tried where there is such a Python."""
    told = {"rank": int, "text": str}
    body = {"__module__": __name__, "__annotate_func__": lambda form: told if form == 1 else None, "text": "none"}

    late = RecordType("Late", (Record,), body)

    assert (late._fields, late._defaults) == (Plain._fields, Plain._defaults)
    assert repr(late(3)) == "Late(rank=3)"
    assert to_data(late(3, "x")) == to_data(Plain(3, "x")) == {"rank": 3, "text": "x"}
    assert from_data(Plain, {"rank": 3, "later": 1}) == Plain(3)
