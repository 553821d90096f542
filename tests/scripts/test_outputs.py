"""What counts as the same output: the lines that programs print."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.environ["CMP_TEST_SOURCE"], "scripts"))

from cmp_preload.measuring.outputs import Comparison, measurements  # pylint: disable=wrong-import-position

MEASUREMENTS = (  # a line, and which of its numbers are times or rates
    ("Elapsed: 2.1 s", [0]),
    ("Time = 12", [0]),
    ("time(ms): 3.5", [0]),
    ("Elapsed (3 runs): 1.5", [0, 1]),
    ("took 5ms", [0]),
    ("real 0m1.5s", [1]),
    ("kernel 3 took 0.25 ms on device 0", [1]),
    ("epoch 3 loss 0.4312 time 1.2 s", [2]),
    ("epoch 3 time 1.2 loss 0.4312", [1]),
    ("epoch: 3, loss: 0.5, 120.5 img/s", [2]),
    ("step 10: loss 2.5, 8.5it/s, lr 0.01", [2]),
    ("100%|####| 10/10 [00:12<00:03,  1.25s/it]", [3, 4, 5, 6, 7]),
    ("Bandwidth: 123.4 GB/s for 1048576 bytes", [0]),
    ("Performance= 3140.12 GFlop/s, Time= 0.042 msec, Size= 131072 Ops", [0, 1]),
    ("Throughput = 12.5, Workgroup size = 256", [0]),
    ("BM_Copy/1024    93.2 ns    92.9 ns    7514834", [1, 2]),
    ("2026-11-23 10:15:30 started", [0, 1, 2, 3, 4, 5]),
    ("speed-up 2.5x with 4 threads", [0]),
    ("1000 samples per second", [0]),
    ("60 fps", [0]),
    ('{"what": "launch", "threads": 8, "ns": 515.5}', [1]),
    ('{"iterations": 100, "real_time": 93.2, "cpu_time_ns": 5}', [1, 2]),
    ("time_steps: 100, ms=12", [1]),
    # Results.
    ("loss = 0.5", []),
    ("sum 12", []),
    ("error: 3", []),
    ("accuracy 0.91", []),
    ("checksum 0x1f2e", []),
    ("residual 1e-5 after 12 iterations", []),
    ("n = 1000, 1024x768", []),
    ("rank 0 of 2", []),
    ("time step 3 energy -1.5", []),
    ("wrong words 0, hazards 0", []),
    ("test 5 passed, 0 failed", []),
    ("learning rate 0.001", []),
    ("timeout 5", []),
    ("seconds matrix: 3", [0]),  # in doubt
    ("checksum: 12 min: -3.4 max: 5.6", []),
    ("1.0 min 3.0 max", []),
    ("orbital 2 s 0.5", []),
    ("time: 0.5 temp: 301.2 pressure: 1.01", [0]),
    ("Time: 0.5 Courant Number mean: 0.12 max: 0.4", [0]),
    ("velocity 12.5 m/s at 440.0 Hz", []),
    ("Energy: -76.026 h", []),
    ("performance: 0.912", []),
    ("speed of sound 343.2, pulse duration 5e-9", []),
    ("took 12 iterations", []),
    ("time-averaged lift: 0.31", []),
    ("MS: 3.4", []),
    ("score 10:20", []),
)


def compared(references, data, tolerance=0.0):
    comparison = Comparison("stdout", [text.encode() for text in references], [], tolerance)
    return comparison, comparison.difference(data.encode())


class Outputs(unittest.TestCase):
    def test_measurements(self):
        for line, expected in MEASUREMENTS:
            with self.subTest(line=line):
                self.assertEqual(sorted(measurements(line)), expected)

    def test_a_time_that_only_the_pool_changes(self):
        comparison, difference = compared(["Elapsed: 2.1 s\nsum 5"] * 3, "Elapsed: 1.1 s\nsum 5")
        self.assertIsNone(difference)
        self.assertEqual(len(comparison.measured), 1)
        comparison, difference = compared(["Elapsed: 2.1 s\nsum 5"] * 3, "Elapsed: 2.1 s\nsum 5")
        self.assertIsNone(difference)
        self.assertFalse(comparison.measured)

    def test_a_result_beside_a_time(self):
        reference = "epoch 3 loss 0.4312 time 1.2 s"
        self.assertIsNone(compared([reference], "epoch 3 loss 0.4312 time 10.9 s")[1])
        self.assertIn("line 1", compared([reference], "epoch 3 loss 0.4313 time 1.2 s")[1])
        self.assertIn("line 1", compared([reference], "epoch 4 loss 0.4312 time 1.2 s")[1])

    def test_a_result_beside_a_number_that_varies(self):
        references = ["pid 17 sum 5", "pid 23 sum 5"]
        comparison, difference = compared(references, "pid 99 sum 5")
        self.assertIsNone(difference)
        self.assertEqual(comparison.varying, 1)
        self.assertIn("'pid 17 sum 5', then", compared(references, "pid 99 sum 6")[1])

    def test_what_differs_is_shown(self):
        """However far in a line it stands."""
        line = '{"size": 1, "us": 2.5, "streams": 1, "a name": "long", "held_mib": %s, "more": 9}'
        self.assertEqual(
            compared([line % 2], line % 194)[1],
            """stdout line 1: '…"a name": "long", "held_mib": 2, "more": 9}', """
            """then '…"a name": "long", "held_mib": 194, "more": 9}'""",
        )
        self.assertIn('"long", "held', compared([line % 2], line.replace("held", "kept") % 2)[1])

    def test_columns_may_move_with_their_numbers(self):
        self.assertIsNone(compared(["took    9.5 ms"], "took   10.5 ms")[1])

    def test_words_are_compared(self):
        self.assertIn("FAIL", compared(["Result = PASS"], "Result = FAIL")[1])
        self.assertIn("nothing", compared(["one\ntwo"], "one")[1])

    def test_tolerance(self):
        self.assertIsNone(compared(["sum 1.0000001"], "sum 1.0000002", 1e-6)[1])
        self.assertIsNotNone(compared(["sum 1.0000001"], "sum 1.0000002")[1])
        self.assertIsNotNone(compared(["hash 0xff01"], "hash 0xff02", 0.5)[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
