"""What is counted of compiled programs: texts written by hand, whose counts are worked out here."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import hlo, traffic  # noqa: E402

# A loop of 5 turns adds a row of 128 floats of a table to the carry, in place, and multiplies; the
# counter starts at 1 and goes on by 2 up to 10. Before it a product, behind it a sum over devices.
LOOP = """HloModule m

%row (table: f32[9,128], at: s32[]) -> f32[1,128] {
  %table = f32[9,128]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %one = f32[1,128]{1,0} dynamic-slice(%table, %at, %zero), dynamic_slice_sizes={1,128}
}

%turn (state: (s32[], f32[9,128])) -> (s32[], f32[9,128]) {
  %state = (s32[], f32[9,128]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[9,128]{1,0} get-tuple-element(%state), index=1
  %two = s32[] constant(2)
  %next = s32[]{:S(1)} add(%i, %two)
  %taken = f32[1,128]{1,0} fusion(%x, %i), kind=kLoop, calls=%row
  %nought = s32[] constant(0)
  %put = f32[9,128]{1,0} dynamic-update-slice(%x, %taken, %nought, %nought)
  ROOT %out = (s32[], f32[9,128]{1,0}) tuple(%next, %put)
}

%more (state.1: (s32[], f32[9,128])) -> pred[] {
  %state.1 = (s32[], f32[9,128]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %ten = s32[] constant(10)
  ROOT %less = pred[]{:S(1)} compare(%i.1, %ten), direction=LT
}

ENTRY %main (a: f32[9,32], b: f32[32,128]) -> f32[9,128] {
  %a = f32[9,32]{1,0} parameter(0)
  %b = f32[32,128]{1,0} parameter(1)
  %start = s32[] constant(1)
  %c = f32[9,128]{1,0} dot(%a, %b), lhs_contracting_dims={1}, operand_precision={highest,highest}
  %init = (s32[], f32[9,128]{1,0}) tuple(%start, %c)
  %loop = (s32[], f32[9,128]{1,0}) while(%init), condition=%more, body=%turn
  %y = f32[9,128]{1,0} get-tuple-element(%loop), index=1
  ROOT %all = f32[9,128]{1,0} all-reduce(%y), replica_groups={{0,1,2,3}}, to_apply=%more
}
"""


def test_count_multiplies_what_a_loop_moves_by_its_turns():
    found = traffic.count(LOOP)
    table, row, index = 9 * 128 * 4, 128 * 4, 4
    product = table + (9 * 32 + 32 * 128) * 4
    # The counter's sum: two integers are read, the result stays in the core. A slice: the index and
    # a row read, a row written. The update reads and writes a row.
    turn = 2 * index + (index + 2 * row) + 2 * row
    assert found.bytes == product + 5 * turn + 2 * table
    assert found.flops == {"highest": 2 * 9 * 32 * 128, "other": 5}
    assert found.collective_bytes == table * 2 * 3 / 4  # a ring of four
    assert (found.operations, found.unknown_loops) == (1 + 5 * 3 + 1, 0)


def test_count_says_when_a_loop_keeps_its_turns_to_itself():
    found = traffic.count(LOOP.replace("direction=LT", "direction=NE"))
    assert (found.unknown_loops, found.operations) == (1, 1 + 3 + 1)


@pytest.mark.parametrize("text, size, main", [
    ("f32[3,5]{1,0}", 60, True),
    ("f32[3,5]{1,0:T(8,128)}", 8 * 128 * 4, True),  # tiles are padded
    ("bf16[5,3,200]{1,2,0:T(8,128)(2,1)S(1)}", 5 * 200 * 128 * 2, False),  # axis 1 is the last
    ("s4[7]{0}", 4, True),
    ("c64[2]", 16, True),
])
def test_arrays_take_the_bytes_of_their_tiles(text, size, main):
    (array,) = hlo.arrays_of(text)
    assert (array.size, array.main) == (size, main)


def test_flops_of_a_convolution_leave_padding_out():
    """A batched product as TPUs write it: one tap of each window meets an element."""
    text = """ENTRY %main (a: f32[6,10,7], b: f32[6,7,11]) -> f32[6,10,11] {
  %a = f32[6,10,7]{2,1,0} parameter(0)
  %b = f32[6,7,11]{2,1,0} parameter(1)
  ROOT %c = f32[6,10,11]{2,1,0} convolution(%a, %b), WINDOW
}
"""
    text = text.replace(
        "WINDOW", "window={size=6 stride=5 pad=0_5 lhs_dilate=6}, dim_labels=0bf_0io->0bf"
    )
    assert traffic.count(text).flops == {"default": 2 * 6 * 10 * 7 * 11}
