"""Reading rows: every format gives the same ones, and what is broken is named where it stands."""

import csv
import gzip
import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data.reading import json_rows
from runner.data.reading.folder import files_of
from runner.data.reading.lines import BadRow, Place
from runner.data.reading.read import read
from runner.errors import StepError

Row = dict[str, Any]


def rows_of(path: Path, begin: int = 0) -> list[Any]:
    return [row for _, row in read(path, path.parent, begin)]


def write(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def lines(rows: Sequence[Row], **settings: Any) -> bytes:
    return "".join(json.dumps(row, **settings) + "\n" for row in rows).encode()


# Every format


def as_jsonl(rows: Sequence[Row], folder: Path) -> Path:
    return write(folder, "rows.jsonl", lines(rows, ensure_ascii=False))


def as_escaped_jsonl(rows: Sequence[Row], folder: Path) -> Path:
    return write(folder, "rows.ndjson", lines(rows))


def as_gz(rows: Sequence[Row], folder: Path) -> Path:
    return write(folder, "rows.jsonl.gz", gzip.compress(lines(rows)))


def as_zst(rows: Sequence[Row], folder: Path) -> Path:
    """Two frames, as parallel compressors write them."""
    import pyarrow as pa

    half = len(rows) // 2
    with open(folder / "rows.jsonl.zst", "wb") as file:
        for part in (rows[:half], rows[half:]):
            sink = pa.BufferOutputStream()
            with pa.CompressedOutputStream(sink, "zstd") as stream:
                stream.write(lines(part))
            file.write(sink.getvalue())
    return folder / "rows.jsonl.zst"


def as_json(rows: Sequence[Row], folder: Path) -> Path:
    return write(folder, "rows.json", json.dumps(list(rows), indent=2, ensure_ascii=False))


def as_json_lines(rows: Sequence[Row], folder: Path) -> Path:
    return write(folder, "rows.json", lines(rows))


def as_held_json(rows: Sequence[Row], folder: Path) -> Path:
    return write(folder, "rows.json", json.dumps({"version": 1, "data": list(rows)}))


def as_utf16(rows: Sequence[Row], folder: Path) -> Path:
    return write(folder, "rows.jsonl", lines(rows, ensure_ascii=False).decode().encode("utf-16"))


def as_parquet(rows: Sequence[Row], folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "rows.parquet", row_group_size=3)
    return folder / "rows.parquet"


def as_arrow_stream(rows: Sequence[Row], folder: Path) -> Path:
    import pyarrow as pa

    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_stream(str(folder / "rows.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return folder / "rows.arrow"


def as_arrow_file(rows: Sequence[Row], folder: Path) -> Path:
    import pyarrow.feather
    from pyarrow import Table

    table = Table.from_pylist(list(rows))
    pyarrow.feather.write_feather(table, str(folder / "rows.feather"), chunksize=2)
    return folder / "rows.feather"


def as_saved(rows: Sequence[Row], folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_list(list(rows)).save_to_disk(folder / "saved")
    (path,) = files_of(folder / "saved", None)
    return path


def as_csv(rows: Sequence[Row], folder: Path) -> Path:
    return separated(rows, folder / "rows.csv", ",")


def as_semicolons(rows: Sequence[Row], folder: Path) -> Path:
    return separated(rows, folder / "rows.csv", ";")


def as_tsv(rows: Sequence[Row], folder: Path) -> Path:
    return separated(rows, folder / "rows.tsv", "\t")


def separated(rows: Sequence[Row], path: Path, delimiter: str) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


FLAT = [as_csv, as_semicolons, as_tsv]
DEEP = [
    as_jsonl,
    as_escaped_jsonl,
    as_gz,
    as_zst,
    as_json,
    as_json_lines,
    as_held_json,
    as_utf16,
    as_parquet,
    as_arrow_stream,
    as_arrow_file,
    as_saved,
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
flat_rows = st.lists(st.fixed_dictionaries({"question": texts, "answer": texts}), min_size=2)
messages = st.lists(
    st.fixed_dictionaries({"role": texts, "content": texts | st.none()}), min_size=1
)
deep_rows = st.lists(
    st.fixed_dictionaries(
        {
            "text": texts,
            "messages": messages,
            "n": st.integers(-(2**63), 2**63 - 1),
            "no": st.none(),
        }
    ),
    min_size=2,
    max_size=8,
)


def same_rows(writer: Callable[[Sequence[Row], Path], Path], rows: list[Row], begin: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = writer(rows, Path(folder))
        assert rows_of(path) == rows
        places = list(read(path, path.parent))
        assert list(read(path, path.parent, begin)) == places[begin:]


@pytest.mark.parametrize("writer", FLAT + DEEP)
@settings(max_examples=25, deadline=None)
@given(rows=flat_rows, begin=st.integers(0, 9))
def test_every_format_gives_the_same_texts(
    writer: Callable[[Sequence[Row], Path], Path], rows: list[Row], begin: int
) -> None:
    same_rows(writer, rows, begin)


@pytest.mark.parametrize("writer", DEEP)
@settings(max_examples=25, deadline=None)
@given(rows=deep_rows, begin=st.integers(0, 9))
def test_every_format_gives_the_same_lists_numbers_and_nulls(
    writer: Callable[[Sequence[Row], Path], Path], rows: list[Row], begin: int
) -> None:
    same_rows(writer, rows, begin)


@settings(max_examples=50, deadline=None)
@given(kept=st.lists(texts.filter(lambda t: t.strip() and not {"\n", "\0"} & set(t))))
def test_a_text_file_gives_a_row_for_each_line_that_says_something(kept: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "rows.txt", "\n \n".join(kept))
        assert rows_of(path) == [{"text": line.rstrip("\r")} for line in kept]


def test_more_rows_than_a_batch_come_in_order_from_any_beginning(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"n": range(5000)})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=1300)
    with pa.ipc.new_stream(str(tmp_path / "rows.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=1300)
    for name in ("rows.parquet", "rows.arrow"):
        for begin in (0, 1, 1299, 1300, 1301, 4999, 5000, 9000):
            found = list(read(tmp_path / name, tmp_path, begin))
            assert [row["n"] for _, row in found] == list(range(begin, 5000))
            assert [place.number for place, _ in found] == list(range(begin + 1, 5001))


def test_values_that_datasets_wrote_as_json_texts_are_values_again(tmp_path: Path) -> None:
    import datasets

    rows = [{"a": [1, "x", None], "b": {"k": 1}}, {"a": [{"y": []}], "b": {"k": None}}]
    made = datasets.Dataset.from_list(rows, on_mixed_types="use_json")
    made.save_to_disk(tmp_path / "saved")
    made.to_parquet(tmp_path / "rows.parquet")
    assert rows_of(files_of(tmp_path / "saved", None)[0]) == rows
    assert rows_of(tmp_path / "rows.parquet") == rows


# Places and broken rows


def test_a_place_says_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, "data/rows.jsonl", '{"a": 1}\n\n{"a": 2}\n')
    assert [str(place) for place, _ in read(path, tmp_path)] == [
        "data/rows.jsonl:1",
        "data/rows.jsonl:3",
    ]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_one_broken_line_among_many_is_named_and_the_reading_goes_on(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    good = [{"n": n} for n in range(1000)]
    broken = lines(good[:617]) + b'{"n": 617,\n' + lines(good[617:])
    name = "rows.jsonl" if pack is bytes else "rows.jsonl.gz"
    found = list(read(write(tmp_path, name, pack(broken)), tmp_path))
    bad = [(place, row) for place, row in found if isinstance(row, BadRow)]
    assert [row for _, row in found if not isinstance(row, BadRow)] == good
    assert [place for place, _ in bad] == [Place(name, 618)]
    assert "is not valid JSON: Expecting property name" in str(bad[0][1])
    assert len(list(read(tmp_path / name, tmp_path, 618))) == 1001 - 618


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', 'more than one column "c"'),
        (b'["a"]', "is a JSON list, not an object"),
        (b'"a"', "is a JSON str, not an object"),
        (b'[{"a": 1}]', "one list of objects must be called .json."),
        (b"[", "one list of objects must be called .json."),
        (b"{'a': 1}", "JSON takes double quotes."),
        (b'{"a": 1} {"a": 2}', "Extra data at character 10"),
        (b'{"a": "\\ud83d"}', "half a character"),
        (b'{"a": "caf\xe9"}', "byte 11 of the line, 0xe9, is not UTF-8"),
        (b'{"a": ' + b"[" * 200_000, "is not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b'{"a": "b\x00"}', "is not valid JSON: Invalid control character"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path: Path, line: bytes, says: str) -> None:
    path = write(tmp_path, "rows.jsonl", b'{"a": 0}\n' + line + b'\n{"a": 9}\n')
    first, bad, last = rows_of(path)
    assert (first, last) == ({"a": 0}, {"a": 9})
    assert isinstance(bad, BadRow)
    assert says in str(bad)


def test_what_only_looks_odd_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path, "rows.jsonl", ' {"a": "\u2028\x85", "b": "\\ud83d\\ude00"}\r\n{"c": NaN}'
    )
    assert rows_of(path) == [{"a": "\u2028\x85", "b": "\U0001f600"}, {"c": None}]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt"])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, name: str) -> None:
    text = {"rows.csv": "text\nä\n", "rows.txt": "ä\n"}.get(name, '{"text": "ä"}\n')
    for encoding in ("utf-8-sig", "utf-16"):
        assert rows_of(write(tmp_path, name, text.encode(encoding))) == [{"text": "ä"}]


def test_other_encodings_are_named_with_line_and_byte(tmp_path: Path) -> None:
    text = '{"a": 1}\n{"a": "ä"}\n'
    for encoding in ("utf-16-le", "utf-16-be", "utf-32"):
        with pytest.raises(StepError, match=r"rows.jsonl:1: byte 1: .* UTF-(16[LB]E|32)") as error:
            rows_of(write(tmp_path, "rows.jsonl", text.encode(encoding)))
        assert "iconv -f UTF-" in str(error.value)
    for name in ("rows.csv", "rows.txt"):
        assert "byte 8 of the line, 0xe4" in str(
            rows_of(write(tmp_path, name, text.encode("latin-1")))[-1]
        )
    with pytest.raises(StepError, match=r"rows.json:2: byte 9 of the line, 0xe4, is not UTF-8"):
        rows_of(write(tmp_path, "rows.json", '[{"a": 1},\n {"a": "ä"}]'.encode("latin-1")))


def test_a_line_of_100_mb_is_read_in_no_time(tmp_path: Path) -> None:
    text = "x" * 100_000_000
    path = write(tmp_path, "rows.jsonl", f'{{"a": 1}}\n{{"a": "{text}"}}\n{{"a": 2}}\n')
    begins = time.perf_counter()
    rows = rows_of(path)
    assert time.perf_counter() - begins < 3
    assert [len(str(row["a"])) for row in rows] == [1, len(text), 1]


def test_an_empty_file_has_no_rows_or_is_an_error(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a.tsv", "a.txt"):
        assert rows_of(write(tmp_path, name, "")) == []
    assert rows_of(write(tmp_path, "a.jsonl.gz", gzip.compress(b""))) == []
    for name in ("a.json", "a.parquet", "a.arrow"):
        with pytest.raises(StepError, match=name):
            rows_of(write(tmp_path, name, ""))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.arrow"])
def test_a_file_that_is_cut_off_is_an_error(tmp_path: Path, name: str) -> None:
    writers = {".gz": as_gz, ".zst": as_zst, ".parquet": as_parquet, ".arrow": as_arrow_stream}
    rows = [{"a": f"{n * 7919 % 10007:x}" * 9} for n in range(4000)]
    data = writers[Path(name).suffix](rows, tmp_path).read_bytes()
    for cut in (data[:-40], data[: len(data) // 2], b"no such format at all"):
        with pytest.raises(StepError, match=name):
            rows_of(write(tmp_path, name, cut))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.txt"])
def test_a_file_of_lines_is_never_held_whole(tmp_path: Path, name: str) -> None:
    data = b"text\n" + b"x" * 999 + b"\n"
    data = lines([{"text": "x" * 999}]) if "jsonl" in name else data
    whole = data * 10_000
    path = write(tmp_path, name, gzip.compress(whole, 1) if name.endswith("gz") else whole)
    rows_of(write(tmp_path, "warm.csv", "a\n1\n"))
    del whole
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(path, tmp_path)) >= 10_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


# JSON files


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("[]", []),
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ('{"a": 1}', [{"a": 1}]),
        ('{"meta": {}, "rows": [{"a": 1}, {"a": 2}]}', [{"a": 1}, {"a": 2}]),
        (
            '{\n"messages": [{"role": "user", "content": "x"}]\n}',
            [{"messages": [{"role": "user", "content": "x"}]}],
        ),
        ('{"a": [{"x": 1}], "b": [{"x": 2}]}', [{"a": [{"x": 1}], "b": [{"x": 2}]}]),
    ],
)
def test_a_json_file_may_hold_rows_in_each_usual_way(
    tmp_path: Path, text: str, rows: list[Row]
) -> None:
    assert rows_of(write(tmp_path, "rows.json", text)) == rows


def test_bad_items_of_a_json_file_are_rows_and_broken_json_is_an_error(tmp_path: Path) -> None:
    found = rows_of(write(tmp_path, "rows.json", '[{"a": 1, "a": 2}, 7, {"a": 3}]'))
    assert [str(row) for row in found[:2]] == [
        'has more than one column "a".',
        "is a JSON int, not an object with columns.",
    ]
    assert found[2] == {"a": 3}
    half = rows_of(write(tmp_path, "rows.json", '{"rows": [{"a": "\\ud83d"}, {"a": "b"}]}'))
    assert "half a character" in str(half[0])
    assert half[1] == {"a": "b"}
    for text in ('[{"a": 1},\n{"a": 2', '[{"a": 1}\n{"a": 2}]', '[{"a": 1},\n{"a"}]', "[{}]\n[]"):
        with pytest.raises(StepError, match=r"rows.json:2: is not valid JSON"):
            rows_of(write(tmp_path, "rows.json", text))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_json_file_beyond_the_limit_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(json_rows, "JSON_LIMIT", 1000)
    name = "rows.json" if pack is bytes else "rows.json.gz"
    path = write(tmp_path, name, pack(json.dumps([{"a": "x" * 400}] * 3).encode()))
    with pytest.raises(StepError, match=r"a .json file is read whole") as error:
        rows_of(path)
    assert f"jq -c '.[]' {name} > rows.jsonl" in str(error.value)
    rows = [{"a": "x" * 100}] * 30
    assert rows_of(write(tmp_path, name, pack(lines(rows)))) == rows


# Separated values


def test_an_empty_value_is_an_empty_text(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", 'a,b\r\n,"x\n\n""y"""\r\n\r\n1,\r\n')
    assert [(place.number, row) for place, row in read(path, tmp_path)] == [
        (2, {"a": "", "b": 'x\n\n"y"'}),
        (6, {"a": "1", "b": ""}),
    ]


def test_a_long_value_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", "a,b\n1," + "x" * 1_000_000 + "\n")
    assert len(rows_of(path)[0]["b"]) == 1_000_000


def test_wrong_rows_of_separated_values_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", b'a,b\n1\n1,2\n"x"y,2\n1,\xe4\n3,4\n')
    found = [(place.number, str(row)) for place, row in read(path, tmp_path)]
    assert [number for number, _ in found] == [2, 3, 4, 5, 6]
    assert found[0][1] == "has 1 values for 2 columns."
    assert "is no right row of separated values" in found[2][1]
    assert "byte 3 of the line, 0xe4" in found[3][1]
    assert rows_of(path)[4] == {"a": "3", "b": "4"}


def test_line_ends_of_old_macs_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"rows.csv:1: is no right row .*new-line character"):
        rows_of(write(tmp_path, "rows.csv", "a,b\r1,2\r"))


def test_a_quote_that_never_closes_is_an_error_for_it_hides_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", 'a,b\n1,2\n1,"2\n' + "3,4\n" * 50)
    with pytest.raises(StepError, match=r"rows.csv:3: a quote opens .* the 51 lines from here"):
        rows_of(path)


def test_duplicate_columns_are_an_error_that_names_them(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write(tmp_path, "rows.csv", "a,b,a\n1,2,3\n")
    table = pa.table([[1], [2], [3]], names=["a", "b", "a"])
    pq.write_table(table, tmp_path / "rows.parquet")
    with pa.ipc.new_stream(str(tmp_path / "rows.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("rows.csv", "rows.parquet", "rows.arrow"):
        with pytest.raises(StepError, match=f'{name}.*: has more than one column "a"'):
            rows_of(tmp_path / name)


def test_a_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"rows.xlsx: is no data file"):
        rows_of(write(tmp_path, "rows.xlsx", "x"))


# Which files


def names(folder: Path, *args: Any, **settings: Any) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in files_of(folder, *args, **settings)]


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        write(folder, path, "")


def test_files_are_found_in_a_stable_order_without_what_is_no_data(tmp_path: Path) -> None:
    touch(tmp_path, "b.jsonl", "a.json", "sub/c.csv.gz", "d.parquet", "e.arrow")
    touch(tmp_path, "README.md", "notes.txt", "dataset_info.json", ".cache/x.json", "x.parquet.gz")
    expected = ["a.json", "b.jsonl", "d.parquet", "e.arrow", "sub/c.csv.gz"]
    assert names(tmp_path, None) == names(tmp_path, "train") == expected


def test_texts_are_data_where_there_is_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path, "one.txt", "two.txt")
    assert names(tmp_path, None) == ["one.txt", "two.txt"]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train.jsonl", "train"),
        ("my-training_set.csv", "train"),
        ("dev.json", "validation"),
        ("data/test-00000-of-00002.parquet", "test"),
        ("data/train_sft-00000-of-00001.parquet", "train_sft"),
        ("validation/part1.jsonl.gz", "validation"),
        ("data-00000-of-00002.arrow", "train"),
        ("contest.jsonl", "train"),
        ("evaluation.tsv", "test"),
    ],
)
def test_names_say_splits(tmp_path: Path, path: str, split: str) -> None:
    touch(tmp_path, path, "train.jsonl", "val.jsonl", "test.jsonl")
    assert path in names(tmp_path, split)
    others = {"train", "validation", "test"} - {split}
    assert not any(path in names(tmp_path, other) for other in others)


def test_a_split_that_is_not_there_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    touch(tmp_path, "train.jsonl", "valid.jsonl")
    assert names(tmp_path, "val") == names(tmp_path, "validation") == ["valid.jsonl"]
    with pytest.raises(StepError, match=r'no split "validatoin". Did you mean "validation"\?'):
        names(tmp_path, "validatoin")
    with pytest.raises(StepError, match=r'no split "test". It has: train, validation.'):
        names(tmp_path, "test")


def test_where_no_split_is_train_one_must_be_chosen(tmp_path: Path) -> None:
    touch(tmp_path, "a_test.jsonl")
    assert names(tmp_path, None) == ["a_test.jsonl"]
    touch(tmp_path, "a_dev.jsonl")
    with pytest.raises(
        StepError, match="has the splits test, validation, and none is called train"
    ):
        names(tmp_path, None)


def test_a_folder_without_data_says_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "a.zip", "b.png")
    with pytest.raises(StepError, match=r"there is no data file; the folder holds a.zip, b.png"):
        names(tmp_path, None)


def test_one_name_in_two_formats_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "rows.csv", "rows.parquet")
    with pytest.raises(StepError, match=r"rows.csv and rows.parquet look like the same rows"):
        names(tmp_path, None)


# What a Hub dataset's README says


def readme(folder: Path, configs: str) -> None:
    write(folder, "README.md", f"---\nlicense: mit\nconfigs:\n{configs}---\n# A dataset\n---\n")


@pytest.mark.parametrize(
    "data_files",
    [
        '  data_files: "in/*.jsonl"\n',
        "  data_files:\n  - in/a.jsonl\n  - ./in/b.jsonl\n",
        "  data_files:\n  - split: train\n    path: in/*.jsonl\n  - split: test\n    path: out/*\n",
        "  data_files:\n    train: in/\n    test: [out/c.jsonl]\n",
        "  data_dir: in\n",
        '  data_dir: in\n  data_files: "*.jsonl"\n',
        '  data_files: "**/[ab].jsonl"\n',
    ],
)
def test_the_readme_of_a_hub_dataset_says_which_files_are_data(
    tmp_path: Path, data_files: str
) -> None:
    touch(tmp_path, "in/a.jsonl", "in/b.jsonl", "out/c.jsonl", "train.jsonl")
    readme(tmp_path, f"- config_name: default\n{data_files}")
    assert names(tmp_path, None) == ["in/a.jsonl", "in/b.jsonl"]
    if "test" in data_files:
        assert names(tmp_path, "test") == ["out/c.jsonl"]


def test_one_of_several_configurations_is_chosen(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "b.jsonl")
    both = (
        "- config_name: main\n  data_files: a.jsonl\n- config_name: other\n  data_files: b.jsonl\n"
    )
    readme(tmp_path, both)
    assert names(tmp_path, None, "other") == ["b.jsonl"]
    with pytest.raises(StepError, match="has the configurations main, other, and no default"):
        names(tmp_path, None)
    with pytest.raises(StepError, match=r'no configuration "mian". Did you mean "main"\?'):
        names(tmp_path, None, "mian")
    readme(tmp_path, both + "  default: true\n")
    assert names(tmp_path, None) == ["b.jsonl"]


def test_files_that_the_readme_names_and_nobody_fetched_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "other.jsonl")
    readme(tmp_path, '- config_name: default\n  data_files: "data/*.parquet"\n')
    with pytest.raises(StepError, match=r'README.md names for the split "train" are not there'):
        names(tmp_path, None)


def test_a_readme_names_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "secret.jsonl", "set/a.jsonl")
    for name in ("../secret.jsonl", str(tmp_path / "secret.jsonl"), "hf://datasets/a/b/c.jsonl"):
        readme(tmp_path / "set", f'- config_name: default\n  data_files: "{name}"\n')
        with pytest.raises(StepError, match=r"names data outside of its folder"):
            names(tmp_path / "set", None)


def test_a_readme_that_says_nothing_of_files_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "train.jsonl")
    for text in ("# Data\n", "---\nlicense: [\n---\n", "---\n- a\n---\n", "---\nconfigs: 3\n---\n"):
        write(tmp_path, "README.md", text)
        assert names(tmp_path, None) == ["train.jsonl"]


# What the datasets library saved


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    import datasets

    rows = datasets.Dataset.from_dict({"n": list(range(10))})
    parts = datasets.DatasetDict({"train": rows, "test": rows.select(range(3))})
    parts.save_to_disk(tmp_path / "saved", num_shards={"train": 2, "test": 1})
    return tmp_path / "saved"


def test_what_save_to_disk_wrote_is_read_in_the_order_of_its_shards(saved: Path) -> None:
    shards = files_of(saved, None)
    assert [row["n"] for path in shards for row in rows_of(path)] == list(range(10))
    assert names(saved, "test") == ["test/data-00000-of-00001.arrow"]
    shards[1].unlink()
    with pytest.raises(StepError, match=r"names data-00001-of-00002.arrow, which is not there"):
        files_of(saved, "train")
