"""What the laboratory makes of what it sees (`tests.lab`)."""

from __future__ import annotations

import datetime
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import book, report, run, summary
from tests.lab.cells import CELLS, USUAL, cells, tools
from tests.lab.lanes import turns
from tests.lab.link import Link
from tests.lab.scenarios import Outcome
from tests.lab.series import Series, interface_bytes, jain, shares
from tests.lab.topology import Role

_INTERVAL = 0.05
_DAY = datetime.date(2030, 1, 2)
_MACHINE = {"cpu": "a", "cores": "2", "memory": "3 GiB", "kernel": "6", "when": "2030-01-02T03"}
_USUAL, _FAST = "share-cubic@100M-100ms-20ms", "share-cubic@1000M-100ms-20ms"
_DEVICES = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets
    lo:       0       0    0    0    0     0          0         0        0       0
foreground: 1234567     890    0    0    0     0          0         0   54321     500
"""


def recorded(rates: list[float], role: Role = Role.BACKGROUND) -> Series:
    """A series in which a role gets *rates* bytes a second, one for each sample after the first."""
    series, received = Series(), 0.0
    for number, rate in enumerate([0.0, *rates]):
        received += rate * _INTERVAL
        everybody = dict.fromkeys((each.interface for each in Role), 0)
        series.add(number * _INTERVAL, everybody | {role.interface: int(received)})
    return series


def entry(cell: str, tool: str, **figures: float) -> book.Entry:
    """What a tool has shown, in a single run."""
    outcome = Outcome(figures=figures, series=Series())
    (made,) = book.entries({CELLS[cell]: {tool: [outcome]}}, _DAY, lanes=2)
    return made


def seconds(count: float) -> int:
    """How many samples are taken in that time."""
    return round(count / _INTERVAL)


def test_interfaces_are_told_apart_by_name() -> None:
    """The first number after the name is what was received."""
    assert interface_bytes(_DEVICES) == {"lo": 0, "foreground": 1234567}


def test_the_background_has_what_came_through_the_bottleneck_for_nobody_else() -> None:
    """A proxy hands over something else than what it gets, or at another time."""
    received = {"background": 0, "second": 5, "foreground": 20, "probe": 1, "proxy": 90}
    assert shares(received, through=100) == {**received, "background": 74}


@given(st.floats(1, 1e9), st.integers(1, 9))
def test_equal_shares_are_wholly_fair(rate: float, count: int) -> None:
    """Jain's index is 1 for equal shares, however large they are."""
    assert jain([rate] * count) == pytest.approx(1)


def test_one_who_has_everything_is_as_unfair_as_it_gets() -> None:
    """Jain's index is 1/n where one of n has all; of nothing there is no share."""
    assert jain([5.0, 0, 0, 0]) == pytest.approx(1 / 4)
    assert math.isnan(jain([0.0, 0.0]))


def test_a_rate_is_what_came_between_two_samples() -> None:
    """A rate is an average over the time asked for."""
    series = recorded([1e6] * seconds(2) + [3e6] * seconds(2))
    assert series.rate(Role.BACKGROUND, 0, 2) == pytest.approx(1e6)
    assert series.rate(Role.BACKGROUND, 2, 4) == pytest.approx(3e6)
    assert series.rate(Role.BACKGROUND, 0, 4) == pytest.approx(2e6)
    assert series.rate(Role.FOREGROUND, 0, 4) == 0


def test_a_download_that_yields_is_seen_to() -> None:
    """The time to yield runs to where the rate falls for good, but for what smoothing takes."""
    series = recorded([1e6] * seconds(2) + [0] * seconds(2))
    assert series.falls(Role.BACKGROUND, 1e5, 1, 4) == pytest.approx(1.25, abs=0.1)
    assert series.settles(Role.BACKGROUND, 1e5, 1, 4) == pytest.approx(1.2, abs=0.1)


def test_a_download_that_comes_back_is_seen_to() -> None:
    """The time to return runs to where the rate is high, and stays."""
    series = recorded([0] * seconds(2) + [1e6] * seconds(2))
    assert series.rises(Role.BACKGROUND, 9e5, 1, 4) == pytest.approx(1.25, abs=0.1)


def test_a_short_dip_is_no_yielding() -> None:
    """A rate must hold for half a second."""
    series = recorded([1e6] * seconds(2) + [0] * seconds(0.4) + [1e6] * seconds(2))
    assert series.falls(Role.BACKGROUND, 1e5, 0, 4) == math.inf
    assert series.settles(Role.BACKGROUND, 1e5, 0, 4) == math.inf


def test_one_who_was_never_there_has_yielded_at_once() -> None:
    """What stays below the limit all the time yields in no time."""
    series = recorded([10.0] * seconds(2))
    assert series.settles(Role.BACKGROUND, 1e5, 0, 2) == 0


def test_a_download_begins_with_its_body() -> None:
    """Handshakes are not yet a download; what never comes begins never."""
    series = recorded([100.0] * seconds(1) + [1e6] * seconds(1))
    assert series.began(Role.BACKGROUND, 0) == pytest.approx(1.05, abs=0.06)
    assert series.began(Role.FOREGROUND, 0) == math.inf


def test_echoes_that_are_lost_count_as_the_longest() -> None:
    """The median over echoes of a time; infinite where most were lost, and no number of none."""
    series = Series(echoes={0.1: 0.020, 0.2: 0.022, 0.3: math.inf, 1.1: math.inf})
    assert series.delay(0, 1) == 0.022
    assert series.delay(0, 1, 95) == math.inf
    assert series.delay(1, 2) == math.inf
    assert math.isnan(series.delay(2, 3))


def test_a_link_holds_its_buffer_and_no_more() -> None:
    """The queue's limit in bytes is the rate times its time."""
    link = Link(rate=100, buffer=400, rtt=20)
    assert link.limit == 5_000_000
    assert link.capacity * 8 / 1e6 == pytest.approx(95.6, abs=0.1)


def test_a_token_bucket_takes_every_burst_of_its_link() -> None:
    """What a sender hands over as one fits into the bucket, and is short beside the buffer."""
    for link in {cell.link for cell in CELLS.values()}:
        assert 1514 * link.segments * 2 <= link.burst < link.limit / 5


def test_the_usual_cells_exist() -> None:
    """What is measured by default can be measured."""
    assert set(USUAL) <= set(CELLS)
    assert len(set(USUAL)) == len(USUAL)


def test_cells_are_named_as_files_in_a_shell() -> None:
    """A pattern chooses all that it matches, each once."""
    names = [cell.name for cell in cells(["late-*@20M-20ms-*", "late-bbr@20M-20ms-1ms"])]
    assert names == [
        f"late-{what}@20M-20ms-{rtt}ms" for what in ("cubic", "bbr") for rtt in (1, 20, 100)
    ]
    with pytest.raises(ValueError, match="no such cell: never"):
        cells(["never"])


def test_transferd_is_all_of_its_priorities() -> None:
    """A tool's name is taken as it is, and transferd's stands for three."""
    assert tools(["transferd", "curl"]) == [
        "transferd-high",
        "transferd-normal",
        "transferd-low",
        "curl",
    ]
    with pytest.raises(ValueError, match="no such tool: wget;"):
        tools(["wget"])


def test_tools_play_a_cell_in_turn() -> None:
    """What changes while it is measured concerns all tools; a kind leaves out what it must."""
    chosen = cells(["cpu@20M-20ms-1ms", "pair@20M-20ms-1ms"])
    runs = run.planned(chosen, ["transferd-low", "curl"], 2)
    assert [(each.cell.name.partition("@")[0], each.tool) for each in runs] == [
        *[("cpu", "transferd-low")] * 2,
        *[("pair", "transferd-low"), ("pair", "curl")] * 2,
    ]


def test_who_needs_the_machine_plays_alone_and_last() -> None:
    """Cells of 1 Gbit/s would measure the machine where anything else ran."""
    fast, slow = (run.Run(cell=CELLS[name], tool="curl") for name in (_FAST, _USUAL))
    assert turns([fast, slow, fast, slow], 3) == [(3, [slow, slow]), (1, [fast, fast])]
    assert turns([fast], 2) == [(1, [fast])]
    assert turns([slow], 1) == [(1, [slow])]


def test_an_outcome_comes_back_from_its_process_as_it_was() -> None:
    """Pictures and figures are made of all that a run has seen, echoes that were lost too."""
    series = recorded([1e6] * seconds(1))
    series.echoes.update({0.5: 0.02, 0.55: math.inf})
    series.marks.append((0.5, "download starts"))
    outcome = Outcome(figures={"yields in": math.inf, "kept": 1.0}, series=series)
    assert run.decode(run.encode(outcome)) == outcome


def test_what_is_added_takes_the_place_of_its_like() -> None:
    """Figures of the same cell and tool are replaced, all others are kept."""
    kept = [entry(_USUAL, tool, kept=0.2) for tool in ("curl", "wget2")]
    new = [entry(_USUAL, "curl", kept=0.3), entry(_FAST, "curl", kept=0.4)]
    assert book.merged(kept, new) == [new[0], kept[1], new[1]]


def test_an_entry_says_when_it_was_measured_and_beside_how_many() -> None:
    """Entries of other days stand beside it, and runs that had the machine for themselves."""
    assert [
        (each.measured, each.lanes) for each in (entry(_USUAL, "curl"), entry(_FAST, "curl"))
    ] == [(_DAY, 2), (_DAY, 1)]


def test_what_never_happened_is_null_in_the_file() -> None:
    """JSON has no infinity; medians and runs come back as they went in."""
    written = book.Book(machine=_MACHINE, cells=[entry(_USUAL, "curl", yields=math.inf, kept=0.5)])
    read = book.decode(book.encode(written))
    assert read == written
    assert read.cells[0].figures["yields"] == book.Values(None, [None])


def test_the_committed_results_can_be_added_to() -> None:
    """They are as the laboratory writes them."""
    data = (Path(report.__file__).parent / "results" / "lab.json").read_bytes()
    assert book.decode(data).cells


def test_a_table_has_room_for_figures_that_not_all_have() -> None:
    """What was measured earlier may have other figures."""
    both = [entry(_USUAL, "curl", kept=0.2, old=3), entry(_USUAL, "wget2", kept=math.inf, new=40)]
    assert report.markdown(book.Book(machine=_MACHINE, cells=both)).splitlines()[:6] == [
        f"| {_USUAL} | curl | wget2 |",
        "|---|---|---|",
        "| kept | 0.20 | never |",
        "| old | 3.00 | - |",
        "| new | - | 40.0 |",
        "| measured | 2030-01-02 | 2030-01-02 |",
    ]


def test_a_summary_shows_how_each_line_is_shared() -> None:
    """A row is a link and who was in the foreground; other cells are not in this table."""
    figures = {"foreground kept": 0.99, "is back in": 1.2}
    name = "share-bbr@20M-400ms-1ms"
    rows = summary.sharing([entry(name, "curl", **figures), entry("requests@20M-20ms-1ms", "curl")])
    assert rows.splitlines()[2:] == [
        "| 20 Mbit/s, 1 ms, 400 ms | bbr | curl | 0.99 | - | - | - | 1.20 |"
    ]


def test_a_summary_shows_what_matters_most_elsewhere() -> None:
    """Of each other kind its figures, one in a row."""
    rows = summary.others(
        [
            entry(_USUAL, "curl", **{"foreground kept": 1}),
            entry("late-bbr@20M-20ms-1ms", "curl", **{"foreground kept": 0.5, "delay": 4}),
            entry("requests@20M-20ms-1ms", "curl", **{"p95 beside ÷ alone": 5}),
        ]
    )
    assert rows.splitlines()[2:] == [
        "| 20 Mbit/s, 1 ms, 20 ms | late-bbr | curl | foreground kept | 0.50 |",
        "| 20 Mbit/s, 1 ms, 20 ms | requests | curl | p95 beside ÷ alone | 5.00 |",
    ]


def test_a_summary_knows_a_figure_of_every_kind() -> None:
    """No cell is left out of both tables, whatever kinds there are."""
    for name in CELLS:
        made = [entry(name, "transferd-low")]
        assert len((summary.sharing(made) + "\n" + summary.others(made)).splitlines()) > 4
