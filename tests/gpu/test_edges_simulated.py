"""The GPU tests' program of edge cases on the simulated CUDA: without and with the pool alike."""

import unittest

import programs


class EdgesSimulated(unittest.TestCase):
    def test_every_answer_is_the_same(self):
        edges = str(programs.BUILD / "edges")
        without = programs.run(edges, preload=False, simulated=True, CMPSIM_MEMORY="2G")
        with_pool = programs.run(edges, preload=True, simulated=True, CMPSIM_MEMORY="2G")
        self.assertEqual(without.code, 0, without.errors)
        self.assertEqual(with_pool.code, 0, with_pool.errors)
        self.assertIn("== reset", without.output)
        self.assertEqual(with_pool.output, without.output)
        self.assertGreater(with_pool.statistics["totals"]["thread_cache_hits"], 0)
        self.assertGreater(with_pool.statistics["process"]["capture_real_calls"], 0)


if __name__ == "__main__":
    unittest.main()
