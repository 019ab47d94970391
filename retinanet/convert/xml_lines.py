"""XML with the line of each element, and without what could blow up a reader's memory."""

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from retinanet.runtime.errors import UserError


@dataclass
class Element:
    name: str
    line: int
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def all(self, name: str) -> list["Element"]:
        return [child for child in self.children if child.name == name]

    def first(self, name: str) -> "Element | None":
        return next(iter(self.all(name)), None)


def read_xml(path: Path) -> Element:
    """The outermost element of a file. UserError with the line where it isn't XML."""
    parser = expat.ParserCreate()
    outside = Element("", 0)
    stack = [outside]

    def start(name: str, attributes: object) -> None:
        element = Element(name, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def end(name: str) -> None:
        stack.pop()

    def text(letters: str) -> None:
        stack[-1].text += letters

    def refuse(*_: object) -> None:
        raise UserError(f"{path}:{parser.CurrentLineNumber}: declares a document type, which no annotation needs.")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.StartDoctypeDeclHandler = refuse  # it could define entities that expand without end
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as fault:
        raise UserError(f"{path}:{fault.lineno}: is not XML ({expat.ErrorString(fault.code)}).") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    return outside.children[0]
