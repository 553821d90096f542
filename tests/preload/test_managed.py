"""Managed memory beside the pool: it moves no more often than without, and the pool serves."""

from preload import ONE_THREAD, SANITIZE, TestCase, main, numbers, run


class Managed(TestCase):
    def both(self, scenario, mode, seed):
        """What moved, without the preload and with it: the program's own lines."""
        env = {"CMPSIM_MEMORY": "1G", "CMPSIM_DEVICES": "2", "CMPSIM_SEED": seed}
        results = []
        for preload in (False, True):
            result = run("managed", [scenario], preload=preload, env=env | {"CMP_FREE_SYNC": mode})
            self.assert_ok(result)
            self.assertIn("hazards 0, misuse 0", result.results)
            results.append(result.results)
        return results

    @ONE_THREAD
    def test_managed_memory_moves_as_without_the_pool(self):
        for scenario in ("before", "used-before", "after", "between", "used-between", "several",
                         "oversubscribed", "devices"):
            for mode in ("wait", "auto", "order", "none"):
                for seed in (2,) if SANITIZE else (0, 2):
                    with self.subTest(scenario=scenario, mode=mode, seed=seed):
                        without, within = self.both(scenario, mode, seed)
                        if (scenario, mode) == ("used-between", "none"):
                            # No allocation waits for what is retired.
                            self.assert_little_more(without, within)
                        else:
                            self.assertEqual(without, within)

    @ONE_THREAD
    def test_and_beside_small_blocks_hardly_more_often(self):
        """They share the driver's chunks, which are packed in another way."""
        for mode in ("wait", "auto", "order", "none"):
            with self.subTest(mode=mode):
                self.assert_little_more(*self.both("small-between", mode, 0))

    def assert_little_more(self, without, within):
        moved = [sum(numbers(text)[0::2]) for text in (without, within)]
        self.assertLessEqual(moved[1], 1.1 * moved[0])

    def test_managed_memory_beside_other_threads_caches(self):
        for mode in ("wait", "auto", "order", "none"):
            with self.subTest(mode=mode):
                self.assertEqual(*self.both("threads", mode, 0))

    @ONE_THREAD
    def test_managed_memory_waits_once_for_what_a_long_kernel_holds(self):
        """A wait asks a hundred times; who makes managed memory again need not wait in vain again."""
        env = {"CMPSIM_MEMORY": "1G", "CMP_FREE_SYNC": "order"}
        within = run("managed", ["behind"], env=env)
        self.assert_ok(within)
        looks, queries = numbers(within.notes["asked"])
        self.assertLessEqual(looks, 5)
        self.assertLessEqual(queries, 200)

    @ONE_THREAD
    def test_the_pool_serves_beside_managed_memory(self):
        """Real allocations and frees in rounds of 404, of which managed memory is used in between."""
        served = {"second": 4, "third": 4, "fourth": 4, "afterwards": 4, "later": 4}
        for managed, used, most in (
            (100, 0, {"before": 8, "first": 0, "second": 0, "third": 0, "fourth": 0}),
            (900, 0, {"first": 0, "second": 0, "third": 0, "fourth": 0}),
            (2000, 0, served | {"first": 4}),
            (2000, 300, served | {"first": 4}),
            # It does not fit beside what is used, and might again: so in the first round, and after
            # that a few are made ahead.
            (900, 300, served | {"first": 270}),
        ):
            for mode in ("wait", "auto", "none"):
                with self.subTest(managed=managed, used=used, mode=mode):
                    env = {"CMPSIM_MEMORY": "1G", "CMP_FREE_SYNC": mode}
                    within = run("managed", ["served", managed, used], env=env)
                    self.assert_ok(within)
                    for when, calls in most.items():
                        real = numbers(within.notes[f"real {when}"])
                        self.assertLessEqual(max(real), calls, f"{when}: {real}")


if __name__ == "__main__":
    main()
