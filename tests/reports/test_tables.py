from retinanet.reports.tables import aligned, markdown_head, markdown_row, markdown_table

ROWS = [["cup", "1", "0.5"], ["motorcycle", "12", "-"]]


def test_names_are_on_the_left_and_numbers_on_the_right():
    assert aligned([["", "objects", "AP"], *ROWS]) == [
        "            objects   AP",
        "cup               1  0.5",
        "motorcycle       12    -",
    ]


def test_no_line_ends_in_spaces():
    assert aligned([["a", "b".ljust(9)]]) == ["a  b"]


def test_a_markdown_table_is_aligned_as_text_too():
    assert markdown_table(["class", "objects", "AP"], ROWS) == [
        "| class      | objects | AP  |",
        "| ---------- | ------- | --- |",
        "| cup        | 1       | 0.5 |",
        "| motorcycle | 12      | -   |",
    ]


def test_a_markdown_table_row_by_row():
    assert markdown_head("class", "AP", rule="---:") == "| class | AP |\n| --- | ---: |"
    assert markdown_row("cup", "0.5") == "| cup | 0.5 |"
