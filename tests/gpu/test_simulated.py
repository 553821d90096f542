"""The GPU tests' own programs on the simulated CUDA: without and with the pool alike."""

import unittest

import programs


class Simulated(unittest.TestCase):
    def compare(self, program: str) -> tuple[programs.Result, programs.Result]:
        path = str(programs.BUILD / program)
        without = programs.run(path, preload=False, simulated=True, CMPSIM_MEMORY="2G")
        with_pool = programs.run(path, preload=True, simulated=True, CMPSIM_MEMORY="2G")
        self.assertEqual(without.code, 0, without.errors)
        self.assertEqual(with_pool.code, 0, with_pool.errors)
        self.assertEqual(with_pool.output, without.output)
        return without, with_pool

    def test_edges(self):
        without, with_pool = self.compare("edges")
        self.assertIn("== reset", without.output)
        self.assertGreater(with_pool.statistics["totals"]["thread_cache_hits"], 0)
        self.assertGreater(with_pool.statistics["process"]["capture_real_calls"], 0)

    def test_questions(self):
        without, with_pool = self.compare("questions")
        self.assertIn("buffer ids of three allocations: 3 different", without.output)
        self.assertGreater(with_pool.statistics["totals"]["hit_rate"], 0.3)

    def test_ipc(self):
        without, with_pool = self.compare("ipc")
        self.assertIn("8 blocks shared, 0 wrong", without.output)
        self.assertGreaterEqual(with_pool.statistics["process"]["unpooled_blocks"], 8)


if __name__ == "__main__":
    unittest.main()
