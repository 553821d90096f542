"""What the program does at the very moment at which idle memory goes back to the driver."""

import re

from preload import PRELOAD, PROGRAMS, SANITIZE, TestCase, main, run

CLEAN = "hazards 0, misuse 0"


class Moments(TestCase):
    def at(self, moment, env, preload=True):
        within = run("ageing_moments", [moment], preload=preload, env=env)
        self.assert_ok(within)
        self.assertIn(CLEAN, within.results)
        return within

    def test_the_last_reference_is_given_up(self):
        """No call about a context that is gone, also before the call that ended it returns."""
        for mode in ("auto", "order", "none"):
            for decay in ("20ms", "oncall:20ms"):
                with self.subTest(mode=mode, decay=decay):
                    self.at("reference", {"CMP_DECAY": decay, "CMP_FREE_SYNC": mode})

    def test_a_second_free(self):
        """It is an error, as ever, and what leaves does not come back."""
        within = self.at("second-free", {"CMP_DECAY": "100ms"})
        self.assertEqual(within.results.count("the second free: 1, last error 1\n"), 4)

    def test_a_kernel_stays_on_another_device(self):
        """In the program's frees, which would wait for that of their own device alone."""
        refused = {"CMPSIM_FAIL": "cuMemFreeAsync:1+:801"}
        for env, others in (({"CMP_DECAY": "oncall:40ms"} | refused, []),
                            ({"CMP_DECAY": "40ms"} | refused, []),
                            ({"CMP_DECAY": "40ms"}, [PROGRAMS / "limiter.so"])):
            if others and SANITIZE:
                continue  # no sanitizer is in it
            with self.subTest(env=env, others=others):
                self.at("stays", env | {"CMPSIM_DEVICES": "2"}, preload=[PRELOAD, *others])

    def test_a_driver_that_cannot_free_quietly(self):
        """The frees of the program do it then."""
        env = {"CMP_DECAY": "150ms", "CMPSIM_FAIL": "cuMemFreeAsync:1+:801"}
        within = run("ageing", ["calls", 300], env=env)
        self.assert_ok(within)
        held = {when: int(said.split()[0]) for when, said in within.notes.items()}
        self.assertGreaterEqual(held["before"], 20)
        self.assertLessEqual(held["after"], 1)

    def test_no_free_pays_for_much(self):
        for env in ({}, {"CMPSIM_FAIL": "cuMemFreeAsync:1+:801"}):
            within = self.at("portions", env | {"CMP_DECAY": "oncall:60ms"})
            most, everything = re.fullmatch(r"at most (\d+) real ones in one, (\d+) in all",
                                            within.notes["frees"]).groups()
            self.assertLessEqual(int(most), 65)
            self.assertGreaterEqual(int(everything), 5060)

    def test_the_first_free_is_not_paid_by_the_program(self):
        """It takes 9 to 13 ms. Until it is paid, the program's frees are the real ones."""
        for decay in ("10s", "100ms"):
            within = self.at("first", {"CMP_RESERVE": "1x", "CMP_DECAY": decay})
            self.assertRegex(within.notes["at first"], r"^0 of [1-9]\d* frees")
            self.assertRegex(within.notes["then"], r"^(\d+) of \1 frees")
        within = self.at("first", {"CMP_RESERVE": "1x", "CMP_DECAY": "off"})
        self.assertRegex(within.notes["at first"], r"^([1-9]\d*) of \1 frees")

    def test_what_could_not_be_freed(self):
        within = self.at("put-back", {"CMP_DECAY": "50ms"})
        self.assertIn("all went back later: yes", within.results)

    def test_questions_about_memory(self):
        """To the byte, also for what is on its way."""
        within = self.at("memory", {"CMP_DECAY": "100ms"})
        self.assertIn("free memory was always the same: yes", within.results)

    def test_questions_while_a_free_comes_to_no_end(self):
        """What is on its way is free, as it was; and another device has nothing to do with it."""
        within = run("ageing_moments", ["asks"],
                     env={"CMP_DECAY": "300ms", "CMPSIM_DEVICES": "2"})
        self.assert_ok(within)
        self.assertIn("held up: yes\nfree memory is the same: yes\n", within.results)
        self.assertEqual(within.notes["of the other device"], "asked 1 times, 1 held up")

    def test_the_exit(self):
        within = self.at("exit", {"CMP_DECAY": "50ms"})
        self.assertIn("calls after the exit handlers: 0\n", within.results)
        self.assertLessEqual(int(within.notes["calls after the exit began"]), 65)



if __name__ == "__main__":
    main()
